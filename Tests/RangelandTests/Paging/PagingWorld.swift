// SPDX-License-Identifier: Apache-2.0
//
// A space's paging without its layout: tables, accessors and a fault handler of the test's own.

import CRangeland
import Synchronization

@testable import Rangeland

/// Sendable: handles of structures that synchronise themselves; destroyed by the test's own thread.
final class PagingWorld: @unchecked Sendable {
  let memory: PhysicalMemory
  let tables: PageTables
  let accessors: AccessorTable

  init(frames: Int = 4096) {
    memory = try! PhysicalMemory(frameLimit: frames)
    tables = PageTables.make(memory.reclaimer.context())!
    accessors = AccessorTable.make(tables, memory.arena)!
  }

  deinit {
    accessors.destroy()
    tables.destroy(memory.arena, memory.reclaimer.context())
  }

  var context: Context { memory.reclaimer.context() }
  var arena: UnsafeMutablePointer<FrameArena> { memory.arena }
  /// The calling thread's accessor.
  var accessor: AccessorRef { accessors.accessor(context)! }

  func drops() -> FrameDropList { FrameDropList(arena, accessors, context) }

  /// Installs a new page if there is none, with `word` in its first 8 bytes. Returns whether it did.
  @discardableResult
  func touch(_ address: Address, rights: PageRights = [.read, .write], word: UInt64 = 0) -> Bool {
    let frame = arena.allocate(zeroed: true, context)!
    arena.pointee.bytes(of: frame).storeBytes(of: word, as: UInt64.self)
    let leaf = tables.latchLeaf(address, creating: true, context)!
    let isNew = leaf.install(
      PageTableEntry(frame: frame, rights: rights, kind: .anonymous), at: address)
    leaf.unlockLeaf()
    if !isNew { arena.release(frame, context) }
    return isNew
  }

  /// Unmaps a range as an operation does. Returns the anonymous pages that were there.
  @discardableResult
  func zap(_ range: AddressRange, freeingTables: Bool = true) -> Int {
    var drops = drops()
    tables.zap(range, into: &drops, freeingTables: freeingTables, context)
    drops.shootdown()
    drops.release()
    return drops.anonymousPages
  }

  func protect(_ range: AddressRange, _ allowed: PageRights) {
    var drops = drops()
    tables.protect(range, allowing: allowed, into: &drops, context)
    drops.shootdown()
    drops.release()
  }

  func grant(_ rights: PageRights, _ address: Address) {
    guard let leaf = tables.latchLeaf(address, creating: false, context) else { return }
    leaf.grant(rights, at: address)
    leaf.unlockLeaf()
  }

  /// The first word of a page, past the accessors.
  func hostWord(_ frame: FrameNumber) -> UnsafeMutablePointer<Atomic<UInt64>> {
    arena.pointee.bytes(of: frame).assumingMemoryBound(to: Atomic<UInt64>.self)
  }
}

func page(_ address: Address) -> AddressRange { AddressRange(pageOf: address) }
