"""Into which parts shards fall, for workers and for what is remembered of them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerasline.components.data.partial_results import GROUPS, parts


@pytest.fixture
def shard(tmp_path):
    def made(groups):
        path = tmp_path / f"{groups}.parquet"
        pq.write_table(pa.table({"x": pa.array(range(groups), pa.int64())}), path, row_group_size=1)
        return path

    return made


@pytest.mark.parametrize("groups", range(1, 3 * GROUPS + 2))
def test_the_parts_of_a_shard_hold_all_groups_in_order_and_are_of_one_length_or_nearly(shard, groups):
    path = shard(groups)
    found = parts([path])
    assert [group for part in found for group in part.groups] == list(range(groups))
    assert {part.shard for part in found} <= {str(path)}
    lengths = [len(part.groups) for part in found]
    assert len(lengths) == -(-groups // GROUPS)
    assert max(lengths) <= GROUPS and max(lengths) - min(lengths) <= 1


def test_shards_follow_one_another(shard):
    first, second = shard(5), shard(1)
    assert [(part.shard, part.groups) for part in parts([second, first])] == [
        (str(second), (0,)),
        (str(first), (0, 1)),
        (str(first), (2, 3, 4)),
    ]
