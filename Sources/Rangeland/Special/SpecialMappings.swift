// SPDX-License-Identifier: Apache-2.0
//
// The special mappings that a space knows. They stay until the space ends, so that a listing that looks at an
// old record may use the name.

import RangeLocks
import Synchronization

final class SpecialMappings: @unchecked Sendable {
  /// Guards `known`. Innermost, nothing is taken inside.
  private let latch = Latch()
  private var known: [ObjectIdentifier: SpecialMapping] = [:]
  /// Whether there is any. Set under the latch, never cleared; a call that finds none needs no look at hooks.
  private let used = Atomic<Bool>(false)

  /// Relaxed: a thread that works on a special mapping has seen its record, which was published after it.
  @inline(__always)
  var isUsed: Bool { used.load(ordering: .relaxed) }

  init() {}

  /// For a fork: the same.
  init(copying other: SpecialMappings) {
    other.latch.lock(.innermost)
    known = other.known
    other.latch.unlock(.innermost)
    used.store(!known.isEmpty, ordering: .relaxed)
  }

  func keep(_ mapping: SpecialMapping) {
    latch.lock(.innermost)
    known[ObjectIdentifier(mapping)] = mapping
    used.store(true, ordering: .relaxed)
    latch.unlock(.innermost)
  }
}

extension UnsafeMutablePointer where Pointee == MemoryObject {
  /// The special mapping that an object of that kind stands for; `nil` for others. The space that maps the
  /// object keeps it.
  var special: SpecialMapping? {
    guard pointee.kind == .special else { return nil }
    // Sound: `AddressSpace.insert` makes such objects, with the address as their identity.
    return Unmanaged<SpecialMapping>.fromOpaque(
      UnsafeRawPointer(bitPattern: UInt(pointee.identity)).unsafelyUnwrapped
    ).takeUnretainedValue()
  }
}

extension UnsafeMutablePointer where Pointee == MemoryObject {
  /// Lets the special mapping fill a zeroed frame that is to be page `index`. `false` = there is no such page.
  @inline(never)
  func fillSpecial(_ index: UInt64, _ frame: FrameNumber) -> Bool {
    let bytes = UnsafeMutableRawBufferPointer(
      start: pointee.arena.pointee.bytes(of: frame), count: Int(Address.pageSize))
    return special.unsafelyUnwrapped.fill(index, bytes)
  }
}

extension UnsafeMutablePointer where Pointee == VMARecord {
  /// Tells a special mapping that there is one piece more.
  @inline(never)
  func tellSpecialOpened() { special?.opened?() }

  /// The special mapping of the VMA; `nil` for others.
  var special: SpecialMapping? {
    pointee.flags.contains(.special) ? pointee.backing?.pointee.object.special : nil
  }

  /// Whether `[start, end)` would cut this VMA, which may not be cut.
  func forbidsCut(_ start: Address, _ end: Address) -> Bool {
    guard pointee.flags.contains(.uncut) else { return false }
    return (start > pointee.start && start < pointee.end)
      || (end > pointee.start && end < pointee.end)
  }
}
