// SPDX-License-Identifier: Apache-2.0
//
// Mappings whose pages, name and rules come from the owner of the space. P1, C9, C12 and V1 of the lock map.
//
// Source: Linux include/linux/mm_types.h `struct vm_special_mapping`, `struct vm_operations_struct`.

/// What an owner maps into a space that is neither anonymous memory nor a file: the page with a runtime's
/// entry points (Linux's vdso), a device's registers, the pages of another machine.
///
/// One value may be inserted any number of times, and in several spaces; a space keeps it until the space ends.
///
/// Hooks run on the thread that makes the call, while it holds the space lock over the mapping's pages. They must
/// not call this space or another one: checked builds trap, others may wait for themselves. They may be called from several
/// threads at once. What needs a space or time is better made by a `Pager`.
public final class SpecialMapping: Sendable {
  /// How the pages are treated.
  public enum Kind: Sendable, Hashable {
    /// Memory: counted as resident file pages, copied when a private mapping is written (`VM_MIXEDMAP`).
    case memory
    /// Not memory: its pages are never counted (`VM_PFNMAP`).
    case device
  }

  /// Where the content of the pages comes from.
  public enum Content: Sendable {
    /// These bytes, filled up with zeros to whole pages. An access behind them is a bus error.
    case bytes([UInt8])
    /// The hook fills a page, given zeroed, when it is first touched, and says whether there is one; if not,
    /// the access is a bus error (Linux `vm_special_mapping.fault`). Its number counts from the start of the
    /// mapping. Of threads that touch a page at once several may be asked; one answer stands.
    case fault(@Sendable (_ page: Int, _ bytes: UnsafeMutableRawBufferPointer) -> Bool)
  }

  /// The name in listings, as `[vdso]`.
  public let name: String
  /// How the pages are treated.
  public let kind: Kind
  /// Whether a part of the mapping may be unmapped, moved, or get attributes of its own. If not, such a call
  /// is refused with `EINVAL` (Linux `vm_operations_struct.may_split`; no for `vm_special_mapping`).
  public let maySplit: Bool
  /// Whether it is a program's vdso: `AddressSpace.vdsoBase` tells where it stands.
  public let isVDSO: Bool
  let content: Content
  let moved: (@Sendable (_ from: AddressRange, _ to: AddressRange) -> Void)?
  let opened: (@Sendable () -> Void)?
  let closed: (@Sendable () -> Void)?

  /// Describes a mapping.
  ///
  /// - Parameters:
  ///   - name: for listings.
  ///   - kind: how the pages are treated.
  ///   - content: what they hold when they are first touched.
  ///   - maySplit: whether a part may be unmapped, moved, or get attributes of its own.
  ///   - isVDSO: a space notes where it stands (Linux `mm->context.vdso`).
  ///   - moved: the mapping, or a part of one that may be cut, was moved: its old and its new place (Linux
  ///     `vm_special_mapping.mremap`).
  ///   - opened: there is one piece more than before: a split, or the new place of a move, whose old one is
  ///     closed behind it (Linux `vm_operations_struct.open`). It is not called when the mapping is inserted.
  ///   - closed: a piece is gone (`vm_operations_struct.close`): over the life of an inserted mapping once
  ///     more than `opened`.
  public init(
    name: String, kind: Kind = .memory, content: Content, maySplit: Bool = false,
    isVDSO: Bool = false,
    moved: (@Sendable (_ from: AddressRange, _ to: AddressRange) -> Void)? = nil,
    opened: (@Sendable () -> Void)? = nil, closed: (@Sendable () -> Void)? = nil
  ) {
    (self.name, self.kind, self.content, self.maySplit) = (name, kind, content, maySplit)
    self.isVDSO = isVDSO
    (self.moved, self.opened, self.closed) = (moved, opened, closed)
  }

  /// Fills a page, which holds zeros. `false` = there is none.
  func fill(_ page: UInt64, _ bytes: UnsafeMutableRawBufferPointer) -> Bool {
    switch content {
    case .bytes(let all):
      guard page < (UInt64(all.count) + 4095) / 4096 else { return false }
      let start = Int(page) * 4096
      all[start..<min(all.count, start + 4096)].withUnsafeBytes { bytes.copyMemory(from: $0) }
      return true
    case .fault(let hook): return hook(Int(page), bytes)
    }
  }
}
