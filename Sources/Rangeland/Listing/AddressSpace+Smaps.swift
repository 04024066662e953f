// SPDX-License-Identifier: Apache-2.0
//
// The mappings with what they have in memory, in the format of /proc/pid/smaps.
//
// Range: none. Page tables are read inside an epoch section; each page is told as it was at some instant.
// Source: Linux fs/proc/task_mmu.c `show_smap`, `smaps_pte_entry`, `show_smap_vma_flags`.

extension AddressSpace {
  /// What the mappings of a range have in memory, of each the part that lies in the range. Takes no lock, makes
  /// no writer wait; exact while no operation runs.
  public func mappingUsage(
    in range: AddressRange = .wholeSpace
  ) -> [(mapping: MappingInfo, usage: MappingUsage)] {
    mappings(in: range).map { mapping in
      let start = max(mapping.range.start, range.start)
      let end = min(mapping.range.end, range.end)
      return (mapping, residentUsage(of: AddressRange(start: start, end: end)))
    }
  }

  /// The mappings of a range as `/proc/pid/smaps` shows them: the line of `maps`, then sizes in kB.
  ///
  /// Always 0, because a space has none of it: huge pages, same-page merging, swap. The `sd` of `VmFlags` (soft
  /// dirty) is not told. Takes no lock and makes no writer wait.
  public func smaps(in range: AddressRange = .wholeSpace) -> String {
    var text = ""
    let heap = heapRange
    for (mapping, usage) in mappingUsage(in: range) {
      mapping.writeMapsLine(to: &text, heap: heap)
      func line(_ name: String, _ bytes: UInt64) {
        let label = name + ":"
        let value = String(bytes >> 10)
        let padding = max(1, 24 - label.utf8.count - value.utf8.count)
        text += label + String(repeating: " ", count: padding) + value + " kB\n"
      }
      line("Size", mapping.range.length)
      line("KernelPageSize", Address.pageSize)
      line("MMUPageSize", Address.pageSize)
      line("Rss", usage.resident)
      line("Pss", usage.proportional)
      line("Pss_Dirty", usage.proportionalDirty)
      line("Shared_Clean", usage.sharedClean)
      line("Shared_Dirty", usage.sharedDirty)
      line("Private_Clean", usage.privateClean)
      line("Private_Dirty", usage.privateDirty)
      line("Referenced", usage.referenced)
      line("Anonymous", usage.anonymous)
      line("KSM", 0)
      line("LazyFree", usage.lazilyFreed)
      for name in [
        "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb",
        "Private_Hugetlb", "Swap", "SwapPss",
      ] { line(name, 0) }
      line("Locked", mapping.flags.contains(.locked) ? usage.proportional : 0)
      text += "THPeligible:           0\n"
      text += "VmFlags: " + mapping.flagNames.map { $0 + " " }.joined() + "\n"
    }
    return text
  }

  private func residentUsage(of range: AddressRange) -> MappingUsage {
    var usage = MappingUsage()
    tables.forEachEntry(in: range, reclaimer.context()) { _, entry in
      guard entry.isPresent, entry.kind != .uncounted else { return }
      // An object keeps one reference to its page, besides those of the places that map it.
      let references = UInt64(arena.references(entry.frame))
      let places = entry.kind == .anonymous ? references : max(1, references) - 1
      usage.add(entry, mappedAt: max(1, places))
    }
    usage.finish()
    return usage
  }
}
