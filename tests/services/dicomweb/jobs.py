"""Jobs for worker processes; a process imports this file and little else."""

import os
import time

from libs.dicom.errors import InvalidFrame


def double(number: int) -> int:
    return 2 * number


def crash() -> None:
    os.abort()


def hang() -> None:
    time.sleep(60)


def refuse() -> None:
    raise InvalidFrame("It is cut short.")


def fail() -> None:
    raise ZeroDivisionError


def eat() -> int:
    return len(bytearray(100 << 30))


def process() -> int:
    return os.getpid()
