// SPDX-License-Identifier: Apache-2.0
//
// The accessors of one space, one per thread, and shootdowns.

import CRangeland
import Synchronization

/// A handle: the space owns the table. A thread's accessor is found by the thread's dense index; a thread
/// that gets the index of one that ended adopts its accessor, whose cache is as good as ever.
struct AccessorTable {
  /// `RL_MAX_THREADS` atomic pointers, lazily committed; each set once by the thread that owns it.
  private let slots: UnsafeMutablePointer<Atomic<UInt>>
  private let tables: PageTables
  private let arena: UnsafeMutablePointer<FrameArena>

  private static var slotBytes: Int { Int(RL_MAX_THREADS) * MemoryLayout<UInt>.stride }

  /// Makes an empty table; `nil` without memory.
  static func make(
    _ tables: PageTables, _ arena: UnsafeMutablePointer<FrameArena>
  ) -> AccessorTable? {
    guard let memory = rl_reserve(slotBytes) else { return nil }
    return AccessorTable(
      slots: memory.bindMemory(to: Atomic<UInt>.self, capacity: Int(RL_MAX_THREADS)),
      tables: tables, arena: arena)
  }

  /// Frees all accessors. Nobody uses the space any more.
  func destroy() {
    for i in 0..<Int(rl_thread_index_bound()) {
      if let accessor = AccessorRef(bitPattern: slots[i].load(ordering: .acquiring)) {
        AccessorState.destroy(accessor)
      }
    }
    _ = rl_release(UnsafeMutableRawPointer(slots), Self.slotBytes)
  }

  /// The accessor of the calling thread, whose context is `context`; `nil` without memory.
  @inline(__always)
  func accessor(_ context: Context) -> AccessorRef? {
    // Relaxed: only this thread writes the slot (index reuse goes through a mutex).
    let bits = slots[Int(context.pointee.index)].load(ordering: .relaxed)
    return AccessorRef(bitPattern: bits) ?? make(context)
  }

  /// The accessor of the calling thread if it has one.
  @inline(__always)
  func existingAccessor(_ context: Context) -> AccessorRef? {
    AccessorRef(bitPattern: slots[Int(context.pointee.index)].load(ordering: .relaxed))
  }

  @inline(never)
  private func make(_ context: Context) -> AccessorRef? {
    let index = UInt64(context.pointee.index)
    let id = Swift.min(index + 1, PageTableEntry.cachedBySeveral)
    guard
      let accessor = AccessorState.make(id: id, tables: tables, arena: arena, context: context)
    else { return nil }
    // Releases the accessor to `shoot`. It precedes this thread's first fill, whose compare-and-swap on
    // a table entry a shootdown reads: so whoever finds the id in an entry finds the accessor here.
    slots[Int(index)].store(UInt(bitPattern: accessor), ordering: .releasing)
    return accessor
  }

  /// Makes accessor `id` (1...4094) forget its translations, and waits for its running section.
  func shoot(_ id: UInt64) {
    guard let accessor = AccessorRef(bitPattern: slots[Int(id) - 1].load(ordering: .acquiring))
    else { return }
    // Steps b and c of AccessorState.swift.
    accessor.invalidations.pointee.add(1, ordering: .sequentiallyConsistent)
    Self.waitForSection(of: accessor)
  }

  /// Makes all accessors but `own` forget their translations, and waits for their running sections.
  func shootAll(but own: AccessorRef?) {
    let bound = Int(rl_thread_index_bound())
    for i in 0..<bound {
      guard let accessor = AccessorRef(bitPattern: slots[i].load(ordering: .acquiring)),
        accessor != own
      else { continue }
      accessor.invalidations.pointee.add(1, ordering: .sequentiallyConsistent)
    }
    for i in 0..<bound {
      guard let accessor = AccessorRef(bitPattern: slots[i].load(ordering: .acquiring)),
        accessor != own
      else { continue }
      Self.waitForSection(of: accessor)
    }
  }

  /// Waits until the section that runs now, if one does, has ended. Sections are short and wait for
  /// nothing, so this spins, and yields in case the other thread is not running.
  private static func waitForSection(of accessor: AccessorRef) {
    let running = accessor.pointee.section.load(ordering: .sequentiallyConsistent)
    if running & 1 == 0 { return }
    var spins = 0
    // Acquires the accesses of the section, released by `endSection`.
    while accessor.pointee.section.load(ordering: .acquiring) == running {
      spins += 1
      if spins & 63 == 0 { rl_yield() } else { rl_cpu_relax() }
    }
  }
}
