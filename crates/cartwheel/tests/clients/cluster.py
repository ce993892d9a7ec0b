"""The story with redis-py's cluster client: python3 cluster.py PORT PROTOCOL. It waits for a line on its input while a node is killed."""

import sys

from redis.cluster import RedisCluster

port, protocol = int(sys.argv[1]), int(sys.argv[2])
client = RedisCluster(host="127.0.0.1", port=port, protocol=protocol, decode_responses=True)
prefix = f"cluster{protocol}"
assert len(client.get_nodes()) >= 3

for number in range(300):
    assert client.set(f"{prefix}:{number}", number) is True
for number in range(300):
    assert client.get(f"{prefix}:{number}") == str(number)
assert client.mset_nonatomic({f"{prefix}:m{number}": number for number in range(50)})
assert client.mget_nonatomic([f"{prefix}:m{number}" for number in range(50)]) == [str(number) for number in range(50)]
assert client.mset({"{tag}:a": 1, "{tag}:b": 2}) is True
assert client.mget("{tag}:a", "{tag}:b") == ["1", "2"]
assert client.cluster_countkeysinslot(client.keyslot("{tag}:a")) == 2
assert set(client.cluster_get_keys_in_slot(client.keyslot("{tag}:a"), 10)) == {"{tag}:a", "{tag}:b"}
assert client.expire("{tag}:a", 1000) is True
pipeline = client.pipeline()
for number in range(100):
    pipeline.set(f"{prefix}:p{number}", number)
assert pipeline.execute() == [True] * 100

names = {f"{prefix}:{number}" for number in range(300)}
assert set(client.scan_iter(match=f"{prefix}:[0-9]*", count=50)) == names

print("kill", flush=True)
sys.stdin.readline()
for number in range(300):
    client.set(f"{prefix}:k{number}", number)
for number in range(300):
    assert client.get(f"{prefix}:k{number}") == str(number)
print("done", flush=True)
