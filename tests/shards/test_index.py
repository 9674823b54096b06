"""Looking a sample up in an index."""

import pytest

from hms_dist.errors import UserError
from hms_dist.shards.index import read_index
from hms_dist.shards.schema import INDEX_NAME


def test_a_key_is_found_at_its_row(tiny):
    index = read_index(tiny.folder / INDEX_NAME)
    assert [index.row_of(key) for key in index.frame["key"]] == list(range(11))


def test_a_key_that_is_not_there_is_refused_with_an_example(tiny):
    index = read_index(tiny.folder / INDEX_NAME)
    example = index.frame["key"].iloc[0]
    with pytest.raises(UserError, match=rf"--key: no sample '1-99' among 11; keys are .*, like {example}"):
        index.row_of("1-99")
