// SPDX-License-Identifier: Apache-2.0
//
// The heap of a program: one mapping from a fixed start up to the program break.
//
// Range: from the heap's start to one page above the old and the new break, for writing: two changes of the break
// exclude each other, and nothing comes to stand where the break wants to go.
// Linux: mm/mmap.c `SYSCALL_DEFINE1(brk)`, mm/vma.c `do_brk_flags`.

import Synchronization
import SystemPackage

extension AddressSpace {
  /// Where the heap begins; `nil` = the space has none. Linux sets it when it loads a program.
  ///
  /// Setting it puts the break there too, and maps and unmaps nothing.
  public var heapStart: Address? {
    get {
      let start = heap.start.load(ordering: .acquiring)
      return start == .max ? nil : start
    }
    set {
      // Both or none for a reader of the markers.
      notes.write(heap: heap, start: newValue ?? .max)
    }
  }

  /// The end of the heap, to the byte; `nil` = the space has none.
  public var programBreak: Address? {
    heapStart == nil ? nil : heap.programBreak.load(ordering: .acquiring)
  }

  /// Moves the program break, so that the pages below it are mapped for reading and writing and no others.
  ///
  /// Takes the space lock for writing from the heap's start to one page above the old and the new break; then, after
  /// `lockAllMemory(.future)`, for reading over what the heap has grown by, which is brought in.
  ///
  /// - Parameter wanted: any address, aligned or not.
  /// - Returns: the break now. Like the kernel's call it reports no error: the old break is the answer to a break
  ///   below the heap's start, to one where another mapping is in the way or touches (256 pages more below a stack),
  ///   beyond a limit, and without memory. 0 when the space has no heap.
  @discardableResult
  public func setBreak(to wanted: Address) -> Address {
    let before = LockMap.enter(.setBreak)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    defer { settleFiles(context) }
    while true {
      // Anew each time: the markers may move the heap while we wait.
      guard let start = heapStart else { return 0 }
      let seen = heap.programBreak.load(ordering: .acquiring)
      guard wanted >= start, let newEnd = wanted.roundedUpToPage, newEnd < Address.spaceEnd,
        let oldEnd = seen.roundedUpToPage
      else { return seen }
      let top = min(max(oldEnd, newEnd) + Address.pageSize, Address.spaceEnd)
      let range = AddressRange(start: min(start.pageStart, top - Address.pageSize), end: top)
      var hold = lock.write(range, .setBreak)
      let now = heap.programBreak.load(ordering: .relaxed)
      // Moved while we waited: the range may be too short.
      if now != seen || heapStart != start {
        hold.release()
        continue
      }
      context.pin()
      defer { context.unpin() }
      lockCells(range, &hold)
      park.pass(.setBreak)
      LockMap.observe(.layout, hold, range)
      // Linux `check_data_rlimit`, in bytes.
      if (wanted - start) &+ heap.dataBytes.load(ordering: .relaxed)
        > heapLimit.load(ordering: .relaxed)
      {
        return now
      }
      if newEnd != oldEnd {
        let isDone =
          wanted <= now
          ? shrinkHeap(AddressRange(start: newEnd, end: oldEnd), to: wanted, hold, context)
          : growHeap(AddressRange(start: oldEnd, end: newEnd), to: wanted, hold, context)
        return isDone ? wanted : now
      }
      heap.programBreak.store(wanted, ordering: .releasing)
      return wanted
    }
  }

  private func shrinkHeap(
    _ range: AddressRange, to wanted: Address, _ hold: consuming WriteHold, _ context: Context
  ) -> Bool {
    // Linux looks for the heap's mapping below the old break only.
    guard let record = layout.pointee.findNext(range.start), record.pointee.start < range.end else {
      return false
    }
    do throws(Errno) {
      // A seal, or no memory for the records of a cut, leaves the break where it was.
      try removeHeld(range, hold, context) {
        heap.programBreak.store(wanted, ordering: .releasing)
      }
      return true
    } catch {
      return false
    }
  }

  private func growHeap(
    _ range: AddressRange, to wanted: Address, _ hold: consuming WriteHold, _ context: Context
  ) -> Bool {
    // One page stays free above, and the gap below a stack. `findNext` reads what is not held; a stack that
    // grows down to here holds its gap.
    if let next = layout.pointee.findNext(range.start),
      range.end + Address.pageSize > next.pointee.startWithGuard
    {
      return false
    }
    LockMap.observe(.futureLock, hold, range)
    let attributes = withFutureLock(VMAAttributes(flags: VMAFlags([.read, .write], .private)))
    var change = LayoutChange()
    var isDone = false
    do throws(Errno) {
      try refuseLock(of: range.length >> 12, attributes.flags, isAsked: false, context)
      try refuseMany()
      let granted = try admit(range.length, attributes.flags, context)
      defer { settle(granted, &change, since: LayoutCounts(), context) }
      try layout.pointee.insert(range, attributes, replacing: false, hold, context, &change)
      heap.programBreak.store(wanted, ordering: .releasing)
      isDone = true
    } catch {}
    end(&change, hold, context)
    if isDone && attributes.flags.contains(.locked) {
      // Waits for its range: not inside an epoch.
      context.unpin()
      bringIn(range)
      context.pin()
    }
    return isDone
  }
}

/// Where the heap is. Written under a hold of its start, or by the owner when it sets it up.
struct Heap: ~Copyable {
  let start = Atomic<UInt64>(.max)
  let programBreak = Atomic<UInt64>(.max)
  /// Bytes of a program's data, which count with the heap against `Limits.data`. Written with the markers.
  let dataBytes = Atomic<UInt64>(0)
}
