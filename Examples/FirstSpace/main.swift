// SPDX-License-Identifier: Apache-2.0

import Rangeland

let space = try AddressSpace(policy: .ranged)
let address = try space.map(length: 1 << 20, protection: [.read, .write])

try space.store(UInt64(42), at: address)
print(try space.load(UInt64.self, at: address))

try space.protect(at: address, length: 4096, .read)
do {
  try space.store(UInt64(43), at: address)
} catch {
  print(error)
}

try space.unmap(at: address, length: 1 << 20)
print(space.usage.virtualPages)
