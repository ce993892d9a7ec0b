"""The story with redis-py: python3 story.py PORT PROTOCOL. It waits for a line on its input while a node is killed."""

import sys

import redis

port, protocol = int(sys.argv[1]), int(sys.argv[2])
client = redis.Redis(host="127.0.0.1", port=port, protocol=protocol, decode_responses=True, client_name="story")
assert client.ping()
prefix = f"py{protocol}"

assert client.set(f"{prefix}:a", "1") is True
assert client.get(f"{prefix}:a") == "1"
assert client.get(f"{prefix}:none") is None
assert client.set(f"{prefix}:a", "2", get=True) == "1"
assert client.set(f"{prefix}:a", b"\x00\r\n\xc3\xa4", ex=1000) is True
assert 990 < client.ttl(f"{prefix}:a") <= 1000
assert client.expire(f"{prefix}:a", 50, gt=True) is False
assert client.persist(f"{prefix}:a") is True
assert client.ttl(f"{prefix}:a") == -1
assert client.getex(f"{prefix}:a", px=60_000) == "\x00\r\n\u00e4"
assert client.strlen(f"{prefix}:a") == 5
assert client.getrange(f"{prefix}:a", 0, 0) == "\x00"
assert client.type(f"{prefix}:a") == "string"

assert client.mset({f"{prefix}:{number}": number for number in range(100)}) is True
assert client.mget([f"{prefix}:{number}" for number in range(100)]) == [str(number) for number in range(100)]
assert client.exists(f"{prefix}:1", f"{prefix}:2", f"{prefix}:none") == 2
assert client.delete(f"{prefix}:1", f"{prefix}:none") == 1
assert client.getdel(f"{prefix}:2") == "2"

pipeline = client.pipeline(transaction=False)
for number in range(500):
    pipeline.set(f"{prefix}:p", number)
    pipeline.get(f"{prefix}:p")
assert pipeline.execute() == [reply for number in range(500) for reply in (True, str(number))]

assert client.client_getname() == "story"
assert client.info()["redis_version"].startswith("7.")
assert client.command_count() > 50
for refused in (lambda: client.incr(f"{prefix}:n"), lambda: client.lpush("list", 1), lambda: client.set("", 1)):
    try:
        refused()
    except redis.ResponseError as error:
        assert len(str(error)) > 10
    else:
        raise AssertionError("it should be refused")

found = set(client.scan_iter(match=f"{prefix}:1*", count=7))
assert found == {f"{prefix}:{number}" for number in range(100) if str(number).startswith("1") and number != 1}, found
assert client.dbsize() >= 100 and client.randomkey() is not None

other = redis.Redis(host="127.0.0.1", port=port, db=3, protocol=protocol, decode_responses=True)
assert other.get(f"{prefix}:a") is None
other.set(f"{prefix}:a", "three")
assert client.get(f"{prefix}:a") != "three"

other.flushdb()
assert other.dbsize() == 0 and client.dbsize() >= 100

print("kill", flush=True)
sys.stdin.readline()
for number in range(300):
    client.set(f"{prefix}:k{number}", number)
for number in range(300):
    assert client.get(f"{prefix}:k{number}") == str(number)
print("done", flush=True)
