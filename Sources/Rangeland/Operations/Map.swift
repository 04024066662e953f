// SPDX-License-Identifier: Apache-2.0
//
// Making mappings of anonymous memory.
//
// Range: the result, for writing. With an address it is known before the lock; without one, the gap is
// chosen under a leaf latch, where the range is only tried: if somebody holds it, it is reserved, and the
// operation waits for it without a latch (design, section 4, rule 3). Pages that are brought in ahead are faults of
// their own, under the range for reading.
// Linux: mm/mmap.c `do_mmap`, mm/vma.c `mmap_region`, `vm_unmapped_area`.

import SystemPackage

extension AddressSpace {
  /// Maps anonymous memory, filled with zeros, that takes frames when it is touched.
  ///
  /// Takes the space lock for writing over the result; then, for pages that are brought in (`.locked`, `.populate`,
  /// and after `lockAllMemory(.future)`), for reading.
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
  ///   `.fixedNoReplace` over a mapping; `EPERM` for `.locked` where nothing may be locked, and `EAGAIN` for a
  ///   locked mapping beyond the limit of locked memory; `EPERM` over a sealed one, and `EINVAL` over a part of a special one
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
    if !options.isEmpty { apply(options, to: &attributes) }
    if sharing == .shared {
      if options.contains(.growsDown) { throw refusal(of: address, length, options) }
      attributes.backing = try makeMapping(
        .sharedAnonymous, identity: 0, lastPage: rounded.pageNumber - 1, context)
      attributes.pageOffset = 0
    }
    return try map(attributes, rounded, address, options, context)
  }

  /// Maps attributes whose backing has a reference for the call, and brings pages in that are to be there.
  func map(
    _ attributes: VMAAttributes, _ length: UInt64, _ address: MapAddress, _ options: MapOptions,
    _ context: Context
  ) throws(Errno) -> Address {
    // The records that use it have references of their own.
    defer { attributes.backing?.release(context) }
    let start: Address
    switch address {
    case .fixed(let wanted):
      start = try mapFixed(
        Self.fixedRange(wanted, length), attributes, replacing: true, .map, context)
    case .fixedNoReplace(let wanted):
      start = try mapFixed(
        Self.fixedRange(wanted, length), attributes, replacing: false, .map, context)
    case .hint(let hint):
      start = try mapPlaced(
        length, hint: hint, attributes, below2GiB: options.contains(.below2GiB), context)
    case .anywhere:
      start = try mapPlaced(
        length, hint: nil, attributes, below2GiB: options.contains(.below2GiB), context)
    }
    if futureLock.load(ordering: .relaxed) != 0
      || options.rawValue & (MapOptions.locked.rawValue | MapOptions.populate.rawValue) != 0
    {
      bringIn(AddressRange(start: start, end: start + length))
    }
    return start
  }

  /// The attributes of a new mapping with the lock that new mappings get. Special mappings have none (Linux
  /// `_install_special_mapping`).
  @inline(__always)
  func withFutureLock(_ attributes: VMAAttributes) -> VMAAttributes {
    let lock = futureLock.load(ordering: .relaxed)
    if lock == 0 || attributes.flags.contains(.special) { return attributes }
    var attributes = attributes
    attributes.flags.formUnion(VMAFlags(rawValue: lock))
    return attributes
  }

  /// Linux `calc_vm_flag_bits`.
  func apply(_ options: MapOptions, to attributes: inout VMAAttributes) {
    if options.contains(.growsDown) { attributes.flags.insert(.growsDown) }
    // Linux 6.7 and later: a stack of a thread would be one huge page.
    if options.contains(.stack) { attributes.flags.insert(.noHugePage) }
    if options.contains(.locked) {
      attributes.flags.insert(.locked)
      attributes.asksForLock = true
    }
    // Under strict overcommit everything is promised (`do_mmap`).
    if options.contains(.noReserve), counters.limit(.committed) == SpaceCounters.unlimited {
      attributes.flags.insert(.noReserve)
      attributes.flags.remove(.account)
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
        try refuseGapless(rounded, below2GiB: options.contains(.below2GiB))
      }
      var flags = VMAFlags(rawValue: futureLock.load(ordering: .relaxed))
      if options.contains(.locked) { flags.insert(.locked) }
      try refuseLock(
        of: rounded >> 12, flags, isAsked: options.contains(.locked), reclaimer.context())
      return otherwise
    } catch {
      return error
    }
  }

  /// Refuses a length that no gap holds.
  func refuseGapless(_ length: UInt64, below2GiB: Bool) throws(Errno) {
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    if !layout.pointee.hasGap(length, below2GiB: below2GiB) { throw .noMemory }
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
    _ range: AddressRange, _ wanted: VMAAttributes, replacing: Bool,
    _ operation: OperationKind, _ context: Context
  ) throws(Errno) -> Address {
    wanted.stand(at: range.start)
    var hold = lock.write(range, operation)
    var attributes = wanted
    if operation == .map {
      LockMap.observe(.futureLock, hold, range)
      attributes = withFutureLock(attributes)
    }
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(operation)
    var change = LayoutChange()
    var failure: Errno?
    do throws(Errno) {
      if hasLimits && attributes.flags.contains(.locked) {
        if !replacing && layout.pointee.findIntersection(range.start, range.end) != nil {
          throw .fileExists
        }
        try refuseLock(
          of: range.length >> 12, attributes.flags, isAsked: attributes.asksForLock, context)
      }
      if replacing {
        try refuseSealed(range, hold, context, &change)
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
