"""The hostile instances against the header walk alone: the fates that every door then has to give."""

import time

import pytest

from libs.dicom import DicomError, read_header
from tests.support.hostile import HostileInstance, hostile_instances
from tests.support.hostile.corpus import Identity


@pytest.mark.parametrize("hostile", hostile_instances(), ids=lambda one: one.name)
def test_each_has_its_fate(hostile: HostileInstance) -> None:
    identity = Identity.new()
    data = hostile.make(identity)
    began = time.process_time()
    if hostile.stored:
        header = read_header(data)
        assert (header.sop_instance_uid, header.study_uid) == (identity.instance, identity.study)
    else:
        with pytest.raises(DicomError) as caught:
            read_header(data)
        assert caught.value.failure_reason in hostile.refused
    assert time.process_time() - began < 2
