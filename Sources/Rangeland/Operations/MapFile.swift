// SPDX-License-Identifier: Apache-2.0
//
// Mapping files.
//
// Range: the result, for writing, as for other memory (Map.swift).
// Linux: mm/mmap.c `do_mmap`, `file_mmap_ok`; mm/vma.c `mmap_region`.

import SystemPackage

extension AddressSpace {
  /// Maps a file. Its pages are read when they are touched.
  ///
  /// A shared mapping writes to the file: see `FileObject` for when. A private one copies a page when it writes to
  /// it. An access behind the end of the file, or to a page that cannot be read, is a bus error; the rest of the last
  /// page is zero. Rights that the handle does not allow can neither be had here nor be given later.
  ///
  /// Takes the space lock for writing over the result. The file is not read under it.
  ///
  /// - Parameters:
  ///   - file: of the space's own `memory`.
  ///   - offset: in bytes, a multiple of the page size.
  ///   - length: in bytes, rounded up to pages; may reach beyond the end of the file.
  ///   - address: where it goes; the space chooses by default.
  ///   - protection: the rights of its pages. `.write` needs a handle that may write only if the mapping is shared.
  ///   - sharing: `.shared` writes to the file, `.private` to copies.
  ///   - options: further properties.
  /// - Returns: the first address.
  /// - Throws: in Linux's order `EINVAL` for an unaligned offset, or no length; then what an address is refused for, as
  ///   for anonymous memory; `EOVERFLOW` for an offset that no file has; `EACCES` for a right that the handle does not
  ///   allow; `EPERM` for execution of a file on a file system that forbids it; `EINVAL` for a stack; `ENOMEM`.
  /// - Precondition: the file and the space use the same physical memory.
  public func map(
    _ file: FileObject, offset: UInt64 = 0, length: UInt64, at address: MapAddress = .anywhere,
    protection: Protection, sharing: Sharing = .private, options: MapOptions = []
  ) throws(Errno) -> Address {
    precondition(
      file.memory === memory, "AddressSpace.map: the file's pages are frames of another memory")
    return try mapFile(
      file.access, file.opener, offset, length, address, protection, sharing, options
    ) { () throws(Errno) in file }
  }

  /// The same, of a file that is opened once all else was checked.
  ///
  /// - Parameters:
  ///   - type: what is wrong with the type of the mapping, which is known where it is looked at.
  ///   - isSynchronous: `MAP_SYNC`, which no file has that is not memory itself.
  ///   - open: opens it.
  func mapFile(
    _ access: FileAccess, _ opener: UInt64, _ offset: UInt64, _ length: UInt64,
    _ address: MapAddress, _ protection: Protection, _ sharing: Sharing, _ options: MapOptions,
    type: Errno? = nil, isSynchronous: Bool = false, _ open: () throws(Errno) -> FileObject
  ) throws(Errno) -> Address {
    let before = LockMap.enter(.map)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    defer { settleFiles(context) }
    guard offset.isPageAligned else { throw .invalidArgument }
    if let refused = Self.refusal(
      access, offset, length, protection, sharing, options, type: type,
      isSynchronous: isSynchronous)
    {
      throw refusal(of: address, length, options, otherwise: refused)
    }
    guard length != 0 else { throw .invalidArgument }
    guard let rounded = length.roundedUpToPage, rounded != 0, rounded <= Address.spaceEnd else {
      throw .noMemory
    }
    try refuseMany()
    let file = try open()
    memory.files.register(self)
    var attributes = VMAAttributes(flags: VMAFlags(protection, sharing))
    if !options.isEmpty { apply(options, to: &attributes) }
    if !access.allowsExecution { attributes.flags.remove(.mayExecute) }
    if sharing == .shared && !access.isWritable {
      // It can never be written to: Linux treats it as private from here on.
      attributes.flags.subtract([.shared, .mayWrite])
    }
    attributes.backing = ObjectMapping.make(
      file.object, space: identity, place: place, opener: opener, deltaPages: 0, context)
    guard attributes.backing != nil else { throw .noMemory }
    attributes.pageOffset = offset.pageNumber
    return try withExtendedLifetime(file) { () throws(Errno) in
      try map(attributes, rounded, address, options, context)
    }
  }

  /// What the file says to the request, in Linux's order; `nil` = it may be mapped.
  private static func refusal(
    _ access: FileAccess, _ offset: UInt64, _ length: UInt64, _ protection: Protection,
    _ sharing: Sharing, _ options: MapOptions, type: Errno?, isSynchronous: Bool
  ) -> Errno? {
    if let rounded = length.roundedUpToPage {
      let room = access.isRegular ? UInt64(Int64.max) : UInt64.max
      if rounded > room || offset >> 12 > (room - rounded) >> 12 { return .overflow }
    }
    if let type { return type }
    if sharing == .shared && protection.contains(.write) && !access.isWritable {
      return .permissionDenied
    }
    if !access.isReadable { return .permissionDenied }
    if !access.allowsExecution && protection.contains(.execute) { return .notPermitted }
    if !access.isRegular { return .operationNotSupportedByDevice }
    if options.contains(.growsDown) { return .invalidArgument }
    return isSynchronous && !access.isSharedMemory ? .notSupported : nil
  }
}
