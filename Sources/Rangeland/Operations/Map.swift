// SPDX-License-Identifier: Apache-2.0
//
// Making mappings of anonymous memory.
//
// Range: the result, for writing. With an address it is known before the lock; without one, the gap is
// chosen under a leaf latch, where the range is only tried: if somebody holds it, it is reserved, and the
// operation waits for it without a latch (design, section 4, rule 3).
// Linux: mm/mmap.c `do_mmap`, mm/vma.c `mmap_region`, `vm_unmapped_area`.

import SystemPackage

extension AddressSpace {
  /// Maps anonymous memory, filled with zeros, that takes frames when it is touched.
  ///
  /// Takes the space lock for writing over the result.
  ///
  /// - Parameters:
  ///   - length: in bytes, rounded up to pages.
  ///   - address: where it goes; the space chooses by default.
  ///   - protection: the rights of its pages.
  ///   - sharing: `.shared` makes a new object, which pieces of this mapping share.
  ///   - options: further properties.
  /// - Returns: the first address.
  /// - Throws: in Linux's order `EINVAL` for no length; `ENOMEM` for one that no gap holds, or a fixed
  ///   address beyond the space; `EINVAL` for a fixed address that is not page aligned; `EEXIST` for
  ///   `.fixedNoReplace` over a mapping; `EPERM` over a sealed one, and `EINVAL` over a part of a special one
  ///   that may not be cut; `EINVAL` for a stack that is shared; `ENOMEM` when a limit of the space does not
  ///   allow it (then mappings that reach over an end of a fixed range stay split there, as in Linux), or when
  ///   there is no memory for records. On an error nothing else has changed.
  public func map(
    length: UInt64, at address: MapAddress = .anywhere, protection: Protection,
    sharing: Sharing = .private, options: MapOptions = []
  ) throws(Errno) -> Address {
    let before = LockMap.enter(.map)
    defer { LockMap.leave(before) }
    guard length != 0 else { throw .invalidArgument }
    guard let rounded = length.roundedUpToPage, rounded != 0, rounded <= Address.spaceEnd else {
      throw .noMemory
    }
    try refuseMany()
    let context = reclaimer.context()
    defer { settleFiles(context) }
    var attributes = VMAAttributes(flags: VMAFlags(protection, sharing))
    if !options.isEmpty { apply(options, to: &attributes.flags) }
    if sharing == .shared {
      if options.contains(.growsDown) { throw refusal(of: address, length, options) }
      attributes.backing = try makeMapping(
        .sharedAnonymous, identity: 0, lastPage: rounded.pageNumber - 1, context)
      attributes.pageOffset = 0
    }
    // The records that use it have references of their own.
    defer { attributes.backing?.release(context) }
    switch address {
    case .fixed(let start):
      return try mapFixed(
        Self.fixedRange(start, rounded), attributes, replacing: true, .map, context)
    case .fixedNoReplace(let start):
      return try mapFixed(
        Self.fixedRange(start, rounded), attributes, replacing: false, .map, context)
    case .hint(let hint):
      return try mapPlaced(
        rounded, hint: hint, attributes, below2GiB: options.contains(.below2GiB), context)
    case .anywhere:
      return try mapPlaced(
        rounded, hint: nil, attributes, below2GiB: options.contains(.below2GiB), context)
    }
  }

  /// Linux `calc_vm_flag_bits`.
  func apply(_ options: MapOptions, to flags: inout VMAFlags) {
    if options.contains(.growsDown) { flags.insert(.growsDown) }
    // Linux 6.7 and later: a stack of a thread would be one huge page.
    if options.contains(.stack) { flags.insert(.noHugePage) }
    // Under strict overcommit everything is promised (`do_mmap`).
    if options.contains(.noReserve), counters.limit(.committed) == SpaceCounters.unlimited {
      flags.insert(.noReserve)
      flags.remove(.account)
    }
  }

  /// What a mapping of a wrong type gets: the errors that the kernel finds before it looks at the type.
  func refusal(
    of address: MapAddress, _ length: UInt64, _ options: MapOptions,
    otherwise: Errno = .invalidArgument
  ) -> Errno {
    do throws(Errno) {
      guard length != 0 else { throw .invalidArgument }
      guard let rounded = length.roundedUpToPage, rounded != 0, rounded <= Address.spaceEnd else {
        throw .noMemory
      }
      try refuseMany()
      switch address {
      case .fixed(let start): _ = try Self.fixedRange(start, rounded)
      case .fixedNoReplace(let start):
        let range = try Self.fixedRange(start, rounded)
        if mapping(intersecting: range) != nil { throw .fileExists }
      case .hint, .anywhere:
        let context = reclaimer.context()
        context.pin()
        defer { context.unpin() }
        if !layout.pointee.hasGap(rounded, below2GiB: options.contains(.below2GiB)) {
          throw .noMemory
        }
      }
      return otherwise
    } catch {
      return error
    }
  }

  /// The checks of a fixed address, in Linux's order (`__get_unmapped_area`).
  static func fixedRange(_ start: Address, _ length: UInt64) throws(Errno) -> AddressRange {
    // The kernel takes the last 4,095 addresses for an error that its search returned, and reports it.
    if start > UInt64.max - 4095 { throw Errno(rawValue: Int32(0 &- start)) }
    guard start <= Address.spaceEnd - length else { throw .noMemory }
    guard start.isPageAligned else { throw .invalidArgument }
    return AddressRange(start: start, end: start + length)
  }

  /// A new object and its mapping in this space, with one reference. Where it stands is set when the
  /// mapping gets its address; nobody can find the object before.
  func makeMapping(
    _ kind: ObjectKind, identity number: UInt64, lastPage: UInt64 = .max, _ context: Context
  ) throws(Errno) -> MappingRef {
    guard
      let object = MemoryObject.make(
        kind, identity: number, lastPage: lastPage, arena, context)
    else { throw .noMemory }
    let mapping = ObjectMapping.make(
      object, space: identity, place: place, deltaPages: 0, context)
    object.release(context)
    guard let mapping else { throw .noMemory }
    return mapping
  }

  /// Maps at a known range.
  func mapFixed(
    _ range: AddressRange, _ attributes: VMAAttributes, replacing: Bool,
    _ operation: OperationKind, _ context: Context
  ) throws(Errno) -> Address {
    attributes.stand(at: range.start)
    var hold = lock.write(range, operation)
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(operation)
    var change = LayoutChange()
    var failure: Errno?
    do throws(Errno) {
      if replacing {
        try refuseSealed(range)
        try refuseCut(range)
      }
      if operation == .map && hasLimits {
        try insertLimited(range, attributes, replacing: replacing, hold, &change, context)
      } else {
        try layout.pointee.insert(range, attributes, replacing: replacing, hold, context, &change)
      }
    } catch {
      failure = error
    }
    var drops = FrameDropList(arena, accessors, context)
    if failure == nil && replacing { clearPages(range, hold, &drops, context) }
    end(&change, hold, context)
    drops.release()
    if let failure { throw failure }
    return range.start
  }

  /// `insert` within the limits.
  @inline(never)
  func insertLimited(
    _ range: AddressRange, _ attributes: VMAAttributes, replacing: Bool,
    _ hold: borrowing WriteHold, _ change: inout LayoutChange, _ context: Context
  ) throws(Errno) {
    if !replacing && layout.pointee.findIntersection(range.start, range.end) != nil {
      throw .fileExists
    }
    let granted = try admit(range, attributes.flags, hold, &change, context)
    let before = change.counts
    defer { settle(granted, &change, since: before, context) }
    try layout.pointee.insert(
      range, attributes, replacing: replacing,
      areas: granted.areas(of: 2), hold, context, &change)
  }
}

extension VMAAttributes {
  /// Tells a new object's mapping where its pages stand, before a record uses it.
  @inline(__always)
  func stand(at start: Address) {
    // A mapping that others use already stands where it stands.
    let delta = start.pageNumber &- (pageOffset ?? 0)
    if let backing, backing.pointee.deltaPages != delta { backing.pointee.deltaPages = delta }
  }
}
