"""``python -m tests.support.demo_check``: whether the demo that is up shows what it promises, asked from outside.

For each tenant: its radiologist logs in, finds the shared study with the right patient, reads its metadata and one
frame of another picture than the other tenant's; OHIF is served. It ends with a line that counts.
"""

import sys

import httpx

from cli.demo import Notes
from cli.stack_client import Stack
from deploy.demo.people import HOSPITALS
from deploy.demo.volumes import HEAD_STUDY

_FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"


def look(stack: Stack, tenant: str, user: str) -> tuple[str, bytes]:
    """The patient's name of the shared study and one of its frames, as the user gets them."""
    password = Notes.read(stack.home).passwords[tenant][user]
    with httpx.Client(base_url=stack.public_url, timeout=60) as client:
        form = {"name": user, "password": password, "next": "/"}
        client.post(f"/auth/login/{tenant}", data=form, headers={"Origin": stack.public_url})
        client.get("/").raise_for_status()
        (study,) = client.get("/dicom-web/studies", params={"StudyInstanceUID": HEAD_STUDY}).raise_for_status().json()
        (series,) = client.get(f"/dicom-web/studies/{HEAD_STUDY}/series").raise_for_status().json()
        root = f"/dicom-web/studies/{HEAD_STUDY}/series/{series['0020000E']['Value'][0]}"
        instances = client.get(f"{root}/metadata").raise_for_status().json()
        middle = instances[len(instances) // 2]["00080018"]["Value"][0]
        frame = client.get(f"{root}/instances/{middle}/frames/1", headers={"Accept": _FRAMES}).raise_for_status()
        client.get(f"/ohif/viewer?StudyInstanceUIDs={HEAD_STUDY}").raise_for_status()
        return study["00100010"]["Value"][0]["Alphabetic"], frame.content


def main() -> int:
    """Looks as each tenant's radiologist; the exit code says whether all was right."""
    stack = Stack.find()
    seen = {hospital.tenant: look(stack, hospital.tenant, hospital.people[0].name) for hospital in HOSPITALS}
    names = {name for name, _ in seen.values()}
    frames = {frame for _, frame in seen.values()}
    right = len(names) == len(frames) == len(HOSPITALS)
    for tenant, (name, frame) in seen.items():
        print(f"{tenant}: {name}, a frame of {len(frame)} bytes")
    print(f"demo: {len(seen) if right else 0} passed, {0 if right else len(seen)} failed")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
