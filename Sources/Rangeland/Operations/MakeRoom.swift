// SPDX-License-Identifier: Apache-2.0
//
// Making room for pages that a fault is refused for: at the cost of pages of files, which can be had again.
//
// Range: for the limit of the space its mappings of files, one after the other, for reading; for the limit of all spaces
// none (Paging/Files/Reclaim.swift).
// Linux: mm/memcontrol.c `try_charge_memcg`, mm/vmscan.c `try_to_free_mem_cgroup_pages`.

import Synchronization

extension AddressSpace {
  /// Makes room where there is no memory; whether there is some. Under no lock; may block.
  @inline(never)
  func makeRoom(_ context: Context) -> Bool { memory.files.reclaim(64, context) > 0 }

  /// Makes room within the space's own limit; whether there is some. Under no lock; may block.
  @inline(never)
  func makeRoomWithinLimit(_ context: Context) -> Bool {
    // One at a time: what another is letting go still counts, and is not found any more.
    while true {
      let event = roomTurns.value
      if !isMakingRoom.exchange(true, ordering: .acquiring) { break }
      roomTurns.wait(since: event)
    }
    defer {
      isMakingRoom.store(false, ordering: .releasing)
      roomTurns.signal()
    }
    // Looked at last: what was not found may have gone with its mapping.
    return hasRoom(context) || letFilePagesGo(64, context) || hasRoom(context)
  }

  /// Whether the space's limit allows another page.
  private func hasRoom(_ context: Context) -> Bool {
    counters.allows(.resident, Charge(residentPages: 1), context)
  }

  /// Takes pages of files out of the page tables: they stay in the page cache, and those that were written to stay marked.
  /// Goes on where the last call ended, so that what was just read stays longest. Pages of locked mappings stay.
  ///
  /// - Returns: whether any went.
  private func letFilePagesGo(_ wanted: Int64, _ context: Context) -> Bool {
    let before = LockMap.enter(.advise)
    defer { LockMap.leave(before) }
    let start = nextFilePageToGo.load(ordering: .relaxed)
    var done: Int64 = 0
    for part in [start..<Address.spaceEnd, 0..<start] where done < wanted {
      var position = part.lowerBound
      while done < wanted, position < part.upperBound {
        guard let range = nextFileMapping(&position, part.upperBound, context) else { break }
        done += letFilePagesGo(range, wanted - done, &position, context)
      }
      nextFilePageToGo.store(position, ordering: .relaxed)
    }
    return done > 0
  }

  /// The rest of the next mapping of a file, at some instant; `position` moves to its start.
  private func nextFileMapping(
    _ position: inout Address, _ end: Address, _ context: Context
  ) -> AddressRange? {
    context.pin()
    defer { context.unpin() }
    while position < end, let record = layout.pointee.findNext(position) {
      position = max(position, record.pointee.start)
      if position >= end { return nil }
      let range = AddressRange(start: position, end: min(end, record.pointee.end))
      if record.hasFilePagesToGo { return range }
      position = range.end
    }
    return nil
  }

  /// Does it in one mapping; `position` moves behind what was done.
  private func letFilePagesGo(
    _ range: AddressRange, _ wanted: Int64, _ position: inout Address, _ context: Context
  ) -> Int64 {
    let hold = lock.read(range, .advise)
    park.pass(.advise)
    context.pin()
    defer { context.unpin() }
    LockMap.observe(.layout, hold, range)
    position = range.end
    // It may have gone or changed before the hold.
    guard let record = layout.pointee.find(range.start) else { return 0 }
    LockMap.observe(.vmaFlags, hold, range)
    guard record.hasFilePagesToGo else { return 0 }
    let rest = AddressRange(start: range.start, end: min(range.end, record.pointee.end))
    LockMap.observe(.pageTableEntry, hold, rest)
    var drops = FrameDropList(arena, accessors, context)
    position = tables.zapObject(rest, atMost: wanted, into: &drops, context)
    drops.shootdown()
    account(drops, context)
    let done = drops.residentPages
    drops.release()
    return done
  }
}

extension RecordRef {
  /// Whether its pages can be had again from a file, and nobody has locked them.
  fileprivate var hasFilePagesToGo: Bool {
    pointee.backing?.pointee.object.pointee.file != nil && !pointee.flags.contains(.locked)
  }
}
