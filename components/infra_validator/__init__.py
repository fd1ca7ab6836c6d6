"""A candidate tried out behind a real server, before anybody depends on it: what InfraValidator does.

watchdog.py supervising.py  processes that end when they are told to, and when their parent is gone
signature.py                what the candidate takes and gives
rows.py edge_cases.py cases.py
                            what it is asked
answer.py                   what it says, wherever it is asked
in_process.py               what it answers without a server
server.py serving.py        the server
client.py comparing.py      what it answers through the server, and whether that is the same
latency.py stopwatch.py     how long that takes
verdict.py                  checks, and what is written of them
validate.py                 all of this, in its order
"""
