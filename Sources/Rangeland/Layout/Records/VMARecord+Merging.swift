// SPDX-License-Identifier: Apache-2.0
//
// Which VMAs merge.
//
// Source: Linux 6.18 mm/vma.c `is_mergeable_vma`, `is_mergeable_anon_vma`, `can_vma_merge_before`,
//   `can_vma_merge_after`, `anon_vma_compatible`.

extension UnsafeMutablePointer where Pointee == VMARecord {
  /// Whether a VMA with these attributes may be joined to the part of this one below `address`
  /// (Linux `can_vma_merge_after`).
  @inline(__always)
  func mergesBelow(
    _ address: Address, _ flags: VMAFlags, _ backing: MappingRef?, _ pageOffset: UInt64,
    _ anonymous: MappingRef?
  ) -> Bool {
    pointee.flags == flags && flags.isDisjoint(with: .unmergeable)
      && pointee.pageOffset(at: address) == pageOffset
      && isSameObject(pointee.backing, backing)
      && isCompatibleIdentity(pointee.anonymous, anonymous)
  }

  /// Whether a VMA with these attributes that ends at `address` at object page `pageOffset` may be
  /// joined to the part of this one from there on (Linux `can_vma_merge_before`).
  @inline(__always)
  func mergesAbove(
    _ address: Address, _ flags: VMAFlags, _ backing: MappingRef?, _ pageOffset: UInt64,
    _ anonymous: MappingRef?
  ) -> Bool {
    mergesBelow(address, flags, backing, pageOffset, anonymous)
  }

  /// The identity of this VMA if the neighbour `other`, which it touches at `border`, may share it
  /// (Linux `reusable_anon_vma`): all but the rights is equal, so that a later `mprotect` can merge them.
  func reusableIdentity(for other: RecordRef, touchingAt border: Address) -> MappingRef? {
    guard let identity = pointee.anonymous, !pointee.isReservation else { return nil }
    guard pointee.flags.symmetricDifference(other.pointee.flags).isSubset(of: .access) else {
      return nil
    }
    guard isSameMapping(pointee.backing, other.pointee.backing),
      pointee.pageOffset(at: border) == other.pointee.pageOffset(at: border),
      !identity.isForked
    else { return nil }
    return identity
  }
}

/// Whether two VMAs whose offsets continue map the same object, opened by the same (Linux compares `vm_file`). Where a
/// mapping stands that has no place yet is not known, so that is not compared.
@inline(__always)
func isSameObject(_ a: MappingRef?, _ b: MappingRef?) -> Bool {
  if a == b { return true }
  guard let a, let b else { return false }
  return a.pointee.object == b.pointee.object && a.pointee.opener == b.pointee.opener
}

/// Whether two VMAs map the same object at the same distance, opened by the same (Linux compares `vm_file`); of
/// identities: those of one VMA, split or moved.
@inline(__always)
func isSameMapping(_ a: MappingRef?, _ b: MappingRef?) -> Bool {
  if a == b { return true }
  guard let a, let b else { return false }
  return a.pointee.object == b.pointee.object && a.pointee.deltaPages == b.pointee.deltaPages
    && a.pointee.opener == b.pointee.opener && a.pointee.branch == b.pointee.branch
}

/// Whether VMAs with these identities may become one (Linux `is_mergeable_anon_vma`): equal, or one has
/// none and the other's is not forked.
@inline(__always)
func isCompatibleIdentity(_ a: MappingRef?, _ b: MappingRef?) -> Bool {
  if a == b { return true }
  switch (a, b) {
  case (nil, let only?), (let only?, nil): return !only.isForked
  default: return isSameMapping(a, b)
  }
}
