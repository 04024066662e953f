# SPDX-License-Identifier: Apache-2.0
#
# A load for Python: threads that make and drop buffers, each a mapping of its own. Usage: python3 buffers.py ROUNDS
import hashlib
import json
import random
import sys
import threading


def work(seed, rounds):
    random_source = random.Random(seed)
    kept = []
    for i in range(rounds):
        data = bytearray(random_source.randrange(40_000, 90_000))
        data[0] = i % 256
        data[-1] = 1
        if i % 50 == 0:
            hashlib.sha256(data).digest()
            json.dumps(list(range(500)))
        kept.append(data)
        if len(kept) > 4:
            kept.pop(random_source.randrange(len(kept)))


threads = [threading.Thread(target=work, args=(seed, int(sys.argv[1]))) for seed in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
