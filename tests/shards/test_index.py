"""Looking a sample up in an index, and manifests that are none of this version."""

import json

import pytest

from hms_dist.core.errors import UserError
from hms_dist.shards.index import read_index
from hms_dist.shards.manifest import read_manifest
from hms_dist.shards.schema import FORMAT_VERSION, INDEX_NAME, MANIFEST_NAME


def test_a_key_is_found_at_its_row(tiny):
    index = read_index(tiny.folder / INDEX_NAME)
    assert [index.row_of(key) for key in index.frame["key"]] == list(range(11))


def test_a_key_that_is_not_there_is_refused_with_an_example(tiny):
    index = read_index(tiny.folder / INDEX_NAME)
    example = index.frame["key"].iloc[0]
    with pytest.raises(UserError, match=rf"--key: no sample '1-99' among 11; keys are .*, like {example}"):
        index.row_of("1-99")


def test_a_manifest_of_a_later_format_is_refused_with_its_number(tiny):
    path = tiny.folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": FORMAT_VERSION + 1}))
    with pytest.raises(UserError, match=rf"{path}: expected format version .*, found {FORMAT_VERSION + 1}; "):
        read_manifest(tiny.folder)


def test_a_manifest_that_is_no_object_is_refused(tiny):
    path = tiny.folder / MANIFEST_NAME
    path.write_text("[]")
    with pytest.raises(UserError, match=rf"{path}: expected format version .*, found list; "):
        read_manifest(tiny.folder)
