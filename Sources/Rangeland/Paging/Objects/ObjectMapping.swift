// SPDX-License-Identifier: Apache-2.0
//
// One place where an object is mapped: the anchor of the reverse map.
//
// VMA records point here; an object lists its mappings. A page with index i of the object stands at
// virtual page i + deltaPages of the space, if a record that uses this mapping covers it.

import Synchronization

typealias MappingRef = UnsafeMutablePointer<ObjectMapping>

struct ObjectMapping: ~Copyable {
  /// The object. Immutable.
  let object: UnsafeMutablePointer<MemoryObject>
  /// The space that maps it: its number in the reverse map. Immutable.
  let space: UInt64
  /// Virtual page number minus object page index, wrapping. Immutable.
  let deltaPages: UInt64
  /// Published VMA records that use it. The one that drops it to zero unlinks it.
  let references: Atomic<UInt64>
  /// Links of the object's mapping set. Guarded by the object's latch.
  var next: MappingRef?
  var previous: MappingRef?
}

extension UnsafeMutablePointer where Pointee == ObjectMapping {
  /// One more record uses the mapping. The caller knows that it is alive: a record that it freezes,
  /// or re-reads under the leaf latch, uses it.
  @inline(__always)
  func retain() {
    pointee.references.add(1, ordering: .relaxed)
  }
}
