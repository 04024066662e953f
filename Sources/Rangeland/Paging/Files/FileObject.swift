// SPDX-License-Identifier: Apache-2.0
//
// A file, or something like one, that spaces map.
//
// Guarantee: all who map or open one file share its pages, in all spaces of a physical memory. It lives until the last
//   handle and the last mapping have gone, whatever became of its descriptors and its name; then what was written is
//   written back, and whoever asked is told, once.

import CRangeland
import Synchronization
import SystemPackage

/// A handle of a file that spaces can map (`AddressSpace.map(_:offset:length:...)`).
///
/// Its contents are read when they are needed, and what is written to shared mappings goes back by
/// `AddressSpace.synchronize`, by `synchronize`, in the background after some seconds, and when the last mapping and
/// handle have gone. What others write to the file, past the object, is not seen while the object has the page; a file
/// that others make longer is when it is opened again, one that they make shorter is not: change files that are mapped
/// through their object.
///
/// Methods read and write the file, so they may block; call them while holding no lock that others need.
///
/// Safe to share between threads: what it leads to guards itself.
public final class FileObject: @unchecked Sendable {
  /// Where its pages are frames.
  public let memory: PhysicalMemory
  /// One reference. Immutable.
  let object: ObjectRef
  /// What mappings by this handle are known by. Immutable.
  let opener: UInt64
  let access: FileAccess
  /// The errors that were reported to this handle.
  private let errorCursor: Atomic<UInt64>

  private static let nextOpener = Atomic<UInt64>(1 << 63)

  /// Opens the file behind a descriptor, which may be closed afterwards.
  ///
  /// - Parameters:
  ///   - descriptor: of a regular file, open for reading. Shared mappings may be written to if it is open for writing too.
  ///   - memory: where its pages are frames: that of the spaces that are to map it.
  ///   - released: runs once, when the last handle and mapping of the file have gone and what was written is written back;
  ///     with the error that kept pages from being so, which are lost then. Runs under no lock, on the thread that let go last.
  /// - Throws: `EBADF`; `ENODEV` for what is no regular file; `EACCES` for a descriptor that may not be read from;
  ///   what the kernel says of opening the file once more; `ENOMEM`.
  public convenience init(
    descriptor: FileDescriptor, memory: PhysicalMemory,
    released: (@Sendable (Errno?) -> Void)? = nil
  ) throws(Errno) {
    let access = try FileAccess(descriptor)
    guard access.isReadable else { throw .permissionDenied }
    guard access.isRegular else { throw .operationNotSupportedByDevice }
    try self.init(access, opener: nil, memory: memory, released: released)
  }

  /// - Parameter opener: see `ObjectMapping.opener`; `nil` = one of its own.
  init(
    _ access: FileAccess, opener: UInt64?, memory: PhysicalMemory,
    released: (@Sendable (Errno?) -> Void)?
  ) throws(Errno) {
    let context = memory.reclaimer.context()
    object = try memory.files.object(
      device: access.device, inode: access.inode, memory.arena, context
    ) {
      FileState.make(
        FileSource(.descriptor, device: access.device, inode: access.inode, name: ""),
        size: access.currentSize, pageKind: access.isSharedMemory ? .sharedMemory : .file,
        table: memory.files)
    }
    self.memory = memory
    self.access = access
    self.opener = opener ?? Self.nextOpener.add(1, ordering: .relaxed).oldValue
    let file = object.pointee.file.unsafelyUnwrapped
    errorCursor = Atomic(file.pointee.errors.sample())
    try source.adopt(access.descriptor, writable: access.isWritable)
    if access.size > size { noticeGrowth(file) }
    if let released { source.whenReleased(released) }
    memory.files.writer.start(memory)
  }

  private init(
    _ backing: FileSource.Backing, size: UInt64, kind: PageKind, name: String,
    isWritable: Bool, memory: PhysicalMemory, released: (@Sendable (Errno?) -> Void)?
  ) throws(Errno) {
    if size > UInt64(Int64.max) { throw .invalidArgument }
    let context = memory.reclaimer.context()
    let number = memory.files.newNumber()
    object = try memory.files.object(device: 0, inode: number, memory.arena, context) {
      FileState.make(
        FileSource(backing, device: 0, inode: number, name: name), size: size, pageKind: kind,
        table: memory.files)
    }
    self.memory = memory
    access = FileAccess(inode: number, size: size, isWritable: isWritable)
    opener = Self.nextOpener.add(1, ordering: .relaxed).oldValue
    errorCursor = Atomic(0)
    if let released { source.whenReleased(released) }
    memory.files.writer.start(memory)
  }

  /// Memory that spaces share, filled with zeros (Linux `memfd_create`). Counted as shared memory.
  ///
  /// - Parameters:
  ///   - name: what listings show.
  ///   - size: in bytes.
  ///   - memory: where its pages are frames: that of the spaces that are to map it.
  ///   - released: as for a descriptor; there is never an error.
  /// - Throws: `EINVAL` for a size that no file has, above 2^63 - 1; `ENOMEM`.
  public convenience init(
    name: String, size: UInt64, memory: PhysicalMemory,
    released: (@Sendable (Errno?) -> Void)? = nil
  ) throws(Errno) {
    try self.init(
      .memory, size: size, kind: .sharedMemory, name: name, isWritable: true, memory: memory,
      released: released)
  }

  /// What a pager supplies.
  ///
  /// - Parameters:
  ///   - pager: kept until the object has ended.
  ///   - name: what listings show.
  ///   - size: in bytes.
  ///   - isWritable: whether shared mappings may be written to; private ones always may.
  ///   - memory: where its pages are frames: that of the spaces that are to map it.
  ///   - released: as for a descriptor.
  /// - Throws: `EINVAL` for a size that no file has, above 2^63 - 1; `ENOMEM`.
  public convenience init(
    pager: any Pager, name: String, size: UInt64, isWritable: Bool = true, memory: PhysicalMemory,
    released: (@Sendable (Errno?) -> Void)? = nil
  ) throws(Errno) {
    try self.init(
      .pager(pager), size: size, kind: .file, name: name, isWritable: isWritable, memory: memory,
      released: released)
  }

  deinit {
    let context = memory.reclaimer.context()
    object.release(context)
    memory.files.settle(context)
  }

  var source: FileSource {
    object.pointee.file.unsafelyUnwrapped.pointee.source.takeUnretainedValue()
  }

  /// The file seems to have become longer, past the object. Whoever opens it may have asked for its size before another
  /// made it shorter through the object: so it is asked again where nobody changes it.
  private func noticeGrowth(_ file: FileStateRef) {
    file.pointee.gate.close()
    let now = access.currentSize
    if now > file.pointee.size.load(ordering: .acquiring) {
      file.pointee.size.store(now, ordering: .releasing)
    }
    file.pointee.gate.open()
  }

  // MARK: contents

  /// In bytes.
  public var size: UInt64 {
    object.pointee.file.unsafelyUnwrapped.pointee.size.load(ordering: .acquiring)
  }

  /// Bytes that were written and not yet written back, in whole pages.
  public var dirtyBytes: UInt64 {
    let pages = object.pointee.file.unsafelyUnwrapped.pointee.dirtyPages.load(ordering: .relaxed)
    return UInt64(max(0, pages)) * 4096
  }

  /// Bytes in memory, in whole pages.
  public var residentBytes: UInt64 { object.pointee.pageCount.load(ordering: .relaxed) * 4096 }

  /// Copies bytes out, as mappings show them.
  ///
  /// - Returns: how many: fewer than asked for only at the end.
  /// - Throws: what reading the file says, or the pager; `ENOMEM` without frames. What came before was copied.
  public func read(
    at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) throws(Errno) -> Int {
    try object.readBytes(at: offset, into: buffer, memory.reclaimer.context())
  }

  /// Copies bytes in, as mappings show them at once. The object gets longer if need be.
  ///
  /// - Returns: how many: fewer than asked for only when the object was made shorter meanwhile.
  /// - Throws: `EBADF` for a handle that may not write; `EFBIG` for an end that no file has; what reading the pages or making
  ///   the file longer says; `ENOMEM` without frames. What came before was copied, and the object may be longer.
  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64
  ) throws(Errno) -> Int {
    if !access.isWritable { throw .badFileDescriptor }
    if bytes.isEmpty { return 0 }
    return try object.writeBytes(bytes, at: offset, memory.reclaimer.context())
  }

  /// Gives the object another size (`ftruncate`). Pages behind the end are gone from all mappings in all spaces, private
  /// copies too: an access there is a bus error from then on. What is added reads as zeros.
  ///
  /// Takes the space lock of each space that maps such pages for writing over them. Not under a hook of a space, nor
  /// from a pager of this object.
  ///
  /// - Throws: `EINVAL` for a handle that may not write and for a size that no file has; what the file or pager says.
  public func truncate(to size: UInt64) throws(Errno) {
    if !access.isWritable || size > UInt64(Int64.max) { throw .invalidArgument }
    let before = LockMap.enter(.truncate)
    defer { LockMap.leave(before) }
    try object.resize(to: size, memory.reclaimer.context())
  }

  /// Makes bytes zeros, and gives back what they took (`fallocate` with a hole; `MADV_REMOVE`). The size stays, and so do
  /// copies in private mappings. Locks as `truncate`.
  ///
  /// - Throws: `EINVAL` for no length or a range that no file has; `EBADF` for a handle that may not write; what the
  ///   file or pager says.
  public func punchHole(at offset: UInt64, length: UInt64) throws(Errno) {
    if !access.isWritable { throw .badFileDescriptor }
    let (end, overflow) = offset.addingReportingOverflow(length)
    if length == 0 || overflow || end > UInt64(Int64.max) { throw .invalidArgument }
    let before = LockMap.enter(.truncate)
    defer { LockMap.leave(before) }
    try object.punchHole(offset..<end, memory.reclaimer.context())
  }

  /// Writes everything back that was written, and makes it durable (`fsync`).
  ///
  /// - Throws: the error of a write-back since the last call, or since the handle was made, by whomever it was done; once.
  ///   Pages that could not be written stay dirty.
  public func synchronize() throws(Errno) {
    let before = LockMap.enter(.writeBack)
    defer { LockMap.leave(before) }
    _ = object.writeBack(0..<UInt64.max, memory.reclaimer.context())
    _ = object.synchronizeSource()
    if let error = object.pointee.file.unsafelyUnwrapped.pointee.errors.check(errorCursor) {
      throw error
    }
  }
}

/// What a descriptor allows, as mmap asks.
struct FileAccess: Sendable {
  var descriptor: Int32 = -1
  var device: UInt64 = 0
  var inode: UInt64
  var size: UInt64
  var isReadable = true
  var isWritable: Bool
  var isRegular = true
  var isSharedMemory = false
  var allowsExecution = true

  init(inode: UInt64, size: UInt64, isWritable: Bool) {
    (self.inode, self.size, self.isWritable) = (inode, size, isWritable)
  }

  /// The size now. An object that is made takes it under the table's latch, so that nobody has changed it through
  /// another object since.
  var currentSize: UInt64 {
    var status = rl_file()
    return rl_file_status(descriptor, &status) < 0 ? size : status.size
  }

  /// - Throws: `EBADF`.
  init(_ descriptor: FileDescriptor) throws(Errno) {
    var status = rl_file()
    let result = rl_file_status(descriptor.rawValue, &status)
    // O_PATH: a descriptor that is only a place.
    if result < 0 || status.flags & 0x20_0000 != 0 { throw .badFileDescriptor }
    self.descriptor = descriptor.rawValue
    (device, inode, size) = (status.device, status.inode, status.size)
    isReadable = status.flags & 3 != 1
    isWritable = status.flags & 3 != 0
    isRegular = status.is_regular != 0
    isSharedMemory = status.is_shared_memory != 0
    allowsExecution = status.forbids_execution == 0
  }
}
