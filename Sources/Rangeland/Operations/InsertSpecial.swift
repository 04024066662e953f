// SPDX-License-Identifier: Apache-2.0
//
// Inserting a special mapping, and the rules that other operations keep for it.
//
// Range: the result, for writing.
// Linux: mm/vma.c `insert_vm_struct`, mm/mmap.c `_install_special_mapping`.

import SystemPackage

extension AddressSpace {
  /// Maps what the owner of the space supplies. The mapping never merges and never grows.
  ///
  /// Takes the space lock for writing over the result.
  ///
  /// - Parameters:
  ///   - special: name, pages and hooks. The space keeps it until it ends.
  ///   - length: in bytes, rounded up to pages.
  ///   - address: where it goes. A fixed address never replaces anything.
  ///   - protection: the rights of its pages.
  ///   - allowed: the rights that `protect` may give (Linux `VM_MAY*`). `protection` is not checked against them.
  ///   - sharing: `.private` copies a page when it is written to; `.shared` writes to the page that all
  ///     pieces of this mapping show.
  /// - Returns: the first address.
  /// - Throws: `EINVAL` for no length or an unaligned fixed address; `ENOMEM` when a fixed address is taken or
  ///   beyond the space, when no gap is large enough, or without memory for records. On an error nothing
  ///   has changed.
  public func insert(
    _ special: SpecialMapping, length: UInt64, at address: MapAddress = .anywhere,
    protection: Protection, allowed: Protection = .all, sharing: Sharing = .private
  ) throws(Errno) -> Address {
    let before = LockMap.enter(.insertSpecial)
    defer { LockMap.leave(before) }
    guard length != 0 else { throw .invalidArgument }
    guard let rounded = length.roundedUpToPage, rounded != 0, rounded <= Address.spaceEnd else {
      throw .noMemory
    }
    let context = reclaimer.context()
    specials.keep(special)
    var flags = VMAFlags(protection, sharing)
    flags.insert(.special)
    if !special.maySplit { flags.insert(.uncut) }
    if special.kind == .device {
      // Linux `remap_pfn_range`.
      flags.insert(.device)
      flags.insert(.dontDump)
    }
    flags.remove(.account)
    flags.subtract(.mayAccess)
    if allowed.contains(.read) { flags.insert(.mayRead) }
    if allowed.contains(.write) { flags.insert(.mayWrite) }
    if allowed.contains(.execute) { flags.insert(.mayExecute) }
    let identity = UInt64(UInt(bitPattern: Unmanaged.passUnretained(special).toOpaque()))
    let backing = try makeMapping(.special, identity: identity, context)
    defer { backing.release(context) }
    let attributes = VMAAttributes(flags: flags, pageOffset: 0, backing: backing)
    let start = try insert(attributes, rounded, at: address, context)
    if special.isVDSO {
      noteVDSO(backing, AddressRange(start: start, end: start + rounded), context)
    }
    return start
  }

  private func insert(
    _ attributes: VMAAttributes, _ rounded: UInt64, at address: MapAddress, _ context: Context
  ) throws(Errno) -> Address {
    switch address {
    case .fixed(let start), .fixedNoReplace(let start):
      let range = try Self.fixedRange(start, rounded)
      do throws(Errno) {
        return try mapFixed(range, attributes, replacing: false, .insertSpecial, context)
      } catch {
        // `insert_vm_struct` has one word for every refusal.
        throw error == .fileExists ? .noMemory : error
      }
    case .hint(let hint): return try mapPlaced(rounded, hint: hint, attributes, context)
    case .anywhere: return try mapPlaced(rounded, hint: nil, attributes, context)
    }
  }

  /// Where the special mapping stands that is the vdso (`SpecialMapping.isVDSO`), the one that was inserted last if
  /// there are several; it follows a move of the mapping. Like Linux's `mm->context.vdso` it stays when the mapping
  /// is unmapped. `nil` = none was inserted. Takes no lock.
  public var vdsoBase: Address? {
    let base = vdso.load(ordering: .acquiring)
    return base == 0 ? nil : base
  }

  /// Notes where the vdso stands, unless it was moved or replaced meanwhile: then whoever did that has.
  private func noteVDSO(_ backing: MappingRef, _ range: AddressRange, _ context: Context) {
    let hold = lock.read(range, .insertSpecial)
    context.pin()
    defer { context.unpin() }
    LockMap.observe(.contextBase, hold, range)
    guard let record = layout.pointee.find(range.start), record.pointee.backing == backing else {
      return
    }
    vdso.store(range.start, ordering: .releasing)
  }

  /// A special mapping was moved as a whole: its hook is told, and the vdso noted.
  @inline(never)
  func specialMoved(
    _ record: RecordRef, _ from: AddressRange, _ to: AddressRange, _ hold: borrowing WriteHold
  ) {
    guard let special = record.special else { return }
    if special.isVDSO {
      LockMap.observe(.contextBase, hold, to)
      vdso.store(to.start, ordering: .releasing)
    }
    special.moved?(from, to)
  }

  /// Refuses a change that would cut a special mapping that may not be cut (Linux `may_split`).
  ///
  /// - Precondition: pinned, and the range is held: what is inside it stays as it is.
  @inline(__always)
  func refuseCut(_ range: AddressRange) throws(Errno) {
    if specials.isUsed { try refuseCutSlow(range) }
  }

  @inline(never)
  private func refuseCutSlow(_ range: AddressRange) throws(Errno) {
    let first = layout.pointee.find(range.start)
    let last = layout.pointee.find(range.end - 1)
    if first?.forbidsCut(range.start, range.end) ?? false { throw .invalidArgument }
    if last?.forbidsCut(range.start, range.end) ?? false { throw .invalidArgument }
  }
}

extension LayoutChange {
  /// Runs the hooks for the pieces of special mappings that came and went. Under the hold, under no latch.
  @inline(__always)
  func tellSpecials() {
    if dropsSpecial { Self.tellSpecials(firstDropped) }
  }

  @inline(never)
  private static func tellSpecials(_ first: RecordRef?) {
    forEach(first) { record in
      guard let special = record.special else { return }
      for _ in 0..<record.pointee.pieces { special.opened?() }
      if record.pointee.isRemoved { special.closed?() }
    }
  }
}
