// SPDX-License-Identifier: Apache-2.0
//
// What a call of remap asks for, as its arguments are before and after they were checked.

import SystemPackage

/// Where a mapping that is resized or moved may go (Linux `MREMAP_MAYMOVE`, `MREMAP_FIXED`).
public enum RemapTarget: Sendable, Hashable {
  /// It stays where it is; if it cannot grow there, the call fails.
  case inPlace
  /// It stays if it can, else it goes where the space chooses.
  case anywhere
  /// The same, and a mapping that moves while its source is kept goes here if it is free. Others ignore the
  /// address, as Linux does.
  case hint(Address)
  /// It goes here, replacing what is there.
  case fixed(Address)
}

/// The arguments, checked and rounded: what Linux's `struct vma_remap_struct` begins with.
struct RemapRequest {
  var start: Address
  /// 0: a shared mapping is mapped a second time.
  var oldLength: UInt64
  var newLength: UInt64
  /// Where it goes, or a hint.
  var newAddress: Address
  var isFixed: Bool
  var mayMove: Bool
  var keepsSource: Bool

  /// Makes the checks that Linux makes before it takes the lock (`check_mremap_params`), all of them `EINVAL`.
  init(
    _ start: Address, _ length: UInt64, _ newLength: UInt64, _ target: RemapTarget,
    keepsSource: Bool
  ) throws(Errno) {
    self.start = start
    // `PAGE_ALIGN`: the last 4,095 lengths wrap to 0.
    oldLength = (length &+ 4095) & ~4095
    self.newLength = (newLength &+ 4095) & ~4095
    self.keepsSource = keepsSource
    mayMove = target != .inPlace
    switch target {
    case .inPlace, .anywhere: (newAddress, isFixed) = (0, false)
    case .hint(let hint): (newAddress, isFixed) = (hint, false)
    case .fixed(let address): (newAddress, isFixed) = (address, true)
    }
    guard start.isPageAligned, self.newLength != 0, self.newLength <= Address.spaceEnd else {
      throw .invalidArgument
    }
    if !impliesAddress { return }
    guard newAddress <= Address.spaceEnd - self.newLength, newAddress.isPageAligned, mayMove else {
      throw .invalidArgument
    }
    if keepsSource && oldLength != self.newLength { throw .invalidArgument }
    // Wrapping, as there.
    if start &+ oldLength > newAddress && newAddress + self.newLength > start {
      throw .invalidArgument
    }
  }

  /// Whether it moves in any case (`vrm_implies_new_addr`).
  var impliesAddress: Bool { isFixed || keepsSource }

  /// Whether everything in the range moves, though it be several VMAs (`vrm_move_only`).
  var movesAll: Bool { isFixed && oldLength == newLength }

  /// What the call looks at and changes where the mapping is: it, and where it would grow.
  var sourceRange: AddressRange? {
    guard start < Address.spaceEnd else { return nil }
    let wanted = max(oldLength, impliesAddress ? 0 : newLength, Address.pageSize)
    return AddressRange(start: start, end: start + min(wanted, Address.spaceEnd - start))
  }

  /// Where it goes, if the call says so.
  var fixedRange: AddressRange? {
    isFixed ? AddressRange(start: newAddress, end: newAddress + newLength) : nil
  }
}
