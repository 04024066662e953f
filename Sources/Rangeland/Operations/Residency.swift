// SPDX-License-Identifier: Apache-2.0
//
// Which pages are present. No lock: page tables are read inside an epoch section.
//
// Linux: mm/mincore.c, for private memory.

extension AddressSpace {
  /// The pages of `range` that the page tables map, ascending, the shared page of zeros included, whatever
  /// their rights. Each is told as it was at some instant of the call. For the verifier.
  package func presentPages(in range: AddressRange) -> [Address] {
    var result: [Address] = []
    tables.forEachEntry(in: range, reclaimer.context()) { address, entry in
      if entry.isPresent { result.append(address) }
    }
    return result
  }
}
