"""The parts of shards, for workers and for cached results."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerasline.components.data.partial_results import ROW_GROUPS_PER_PART, split_into_parts


@pytest.fixture
def shard(tmp_path):
    def write(groups):
        path = tmp_path / f"{groups}.parquet"
        pq.write_table(pa.table({"x": pa.array(range(groups), pa.int64())}), path, row_group_size=1)
        return path

    return write


@pytest.mark.parametrize("groups", range(1, 3 * ROW_GROUPS_PER_PART + 2))
def test_parts_have_all_row_groups_in_order_and_nearly_equal_length(shard, groups):
    path = shard(groups)
    found = split_into_parts([path])
    assert [group for part in found for group in part.groups] == list(range(groups))
    assert {part.shard for part in found} <= {str(path)}
    lengths = [len(part.groups) for part in found]
    assert len(lengths) == -(-groups // ROW_GROUPS_PER_PART)
    assert max(lengths) <= ROW_GROUPS_PER_PART and max(lengths) - min(lengths) <= 1


def test_parts_follow_the_order_of_shards(shard):
    first, second = shard(5), shard(1)
    assert [(part.shard, part.groups) for part in split_into_parts([second, first])] == [
        (str(second), (0,)),
        (str(first), (0, 1)),
        (str(first), (2, 3, 4)),
    ]
