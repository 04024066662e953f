// SPDX-License-Identifier: Apache-2.0
//
// What stands behind the pages of a file object: a file of the operating system, nothing but the pages, or a pager.
//
// Everything here may block, and runs under no lock.

import CRangeland
import Synchronization
import SystemPackage

/// What is done with what stands behind a file object: for tests, which trace it and let it fail.
enum FileAction: Sendable, Hashable {
  case read(page: UInt64, count: Int)
  case write(page: UInt64, count: Int)
  case synchronize
  case resize(UInt64)
  case discard(Range<UInt64>)
}

final class FileSource: Sendable, Hashable {
  enum Backing: Sendable {
    case descriptor
    case memory
    case pager(any Pager)
  }

  let backing: Backing
  /// Device and inode; of other objects 0 and a number of their own.
  let device: UInt64
  let inode: UInt64
  /// The name of an object that is no file.
  private let name: String
  private let descriptors = Latched(Descriptors())
  private let callbacks = Latched<[@Sendable (Errno?) -> Void]>([])
  /// Where tests see what is done, before it is done, and make it fail.
  private let probe = Latched<(@Sendable (FileAction) -> Errno?)?>(nil)
  /// Whether there is one: otherwise those who read and write would meet at its latch.
  private let isProbed = Atomic<Bool>(false)

  private struct Descriptors {
    /// -1 = none.
    var reading: Int32 = -1
    var writing: Int32 = -1

    var any: Int32 { writing >= 0 ? writing : reading }
  }

  init(_ backing: Backing, device: UInt64, inode: UInt64, name: String) {
    (self.backing, self.device, self.inode, self.name) = (backing, device, inode, name)
  }

  deinit { close() }

  static func == (a: FileSource, b: FileSource) -> Bool { a === b }

  func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }

  // MARK: life

  /// Keeps a descriptor of its own for the file behind `descriptor`; one for writing if that one is.
  func adopt(_ descriptor: Int32, writable: Bool) throws(Errno) {
    if descriptors.withLock({ writable ? $0.writing >= 0 : $0.any >= 0 }) { return }
    let fresh = rl_reopen(descriptor, writable ? 1 : 0)
    if fresh < 0 { throw Errno(rawValue: -fresh) }
    let surplus = descriptors.withLock { (all) -> Int32 in
      let old = writable ? all.writing : all.reading
      if old >= 0 { return fresh }
      if writable { all.writing = fresh } else { all.reading = fresh }
      return -1
    }
    // Another thread was first.
    if surplus >= 0 { _ = rl_close(surplus) }
  }

  /// `body` runs once, after the object's last page has gone.
  func whenReleased(_ body: @escaping @Sendable (Errno?) -> Void) {
    callbacks.withLock { $0.append(body) }
  }

  /// The object has gone: closes what it has open, and tells whoever wanted to know.
  ///
  /// - Parameter failure: why pages that were written to are lost.
  func end(_ failure: Errno?) {
    close()
    let bodies = callbacks.withLock { (all) in
      defer { all = [] }
      return all
    }
    for body in bodies { body(failure) }
  }

  private func close() {
    let old = descriptors.withLock { (all) in
      defer { all = Descriptors() }
      return all
    }
    if old.reading >= 0 { _ = rl_close(old.reading) }
    if old.writing >= 0 { _ = rl_close(old.writing) }
  }

  /// Where it is, as the kernel tells it: ` (deleted)` behind the path of one that has none any more.
  var path: String {
    let descriptor = descriptors.withLock(\.any)
    if descriptor < 0 { return name }
    return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4097) { buffer in
      let length = rl_descriptor_path(descriptor, buffer.baseAddress!, 4096)
      if length < 0 { return name }
      return String(
        decoding: UnsafeRawBufferPointer(start: buffer.baseAddress, count: length), as: UTF8.self)
    }
  }

  // MARK: pages

  /// Pages that are asked for at a time: aligned groups of so many.
  var readAhead: Int {
    switch backing {
    case .descriptor: 16
    case .memory: 1
    case .pager(let pager): min(max(pager.readAhead, 1), 16)
    }
  }

  var fillsZeros: Bool {
    if case .descriptor = backing { false } else { true }
  }

  /// Fills consecutive pages, the first of which is `page`: all of them or, on an error, none that counts.
  ///
  /// - Parameter pages: hold zeros where `.memory` or a pager is behind them, else anything.
  func fill(
    _ page: UInt64, _ pages: UnsafeMutableBufferPointer<UnsafeMutableRawPointer?>
  ) throws(Errno) {
    try ask(.read(page: page, count: pages.count))
    switch backing {
    case .memory: break
    case .pager(let pager):
      try PagerCall.run(for: self) { () throws(Errno) in
        for (i, bytes) in pages.enumerated() {
          try pager.fill(
            page: page + UInt64(i), into: UnsafeMutableRawBufferPointer(start: bytes, count: 4096))
        }
      }
    case .descriptor: try read(page, pages)
    }
  }

  private func read(
    _ page: UInt64, _ pages: UnsafeMutableBufferPointer<UnsafeMutableRawPointer?>
  ) throws(Errno) {
    let descriptor = descriptors.withLock(\.any)
    let wanted = pages.count * 4096
    var done = 0
    while done < wanted {
      // From the page that is not complete on.
      let first = done / 4096
      let result = rl_preadv(
        descriptor, UnsafePointer(pages.baseAddress! + first), UInt32(pages.count - first),
        (pages.count - first) * 4096, (page + UInt64(first)) << 12)
      if result == -Int(EINTR) { continue }
      if result < 0 { throw Errno(rawValue: Int32(-result)) }
      let now = first * 4096 + result
      // The end of the file, or of what there is.
      if now <= done || result == 0 { break }
      done = now
    }
    // Behind the end are zeros.
    for i in done / 4096..<pages.count {
      let from = i == done / 4096 ? done % 4096 : 0
      (pages[i].unsafelyUnwrapped + from).initializeMemory(
        as: UInt8.self, repeating: 0, count: 4096 - from)
    }
  }

  /// Writes consecutive pages back, `bytes` in all.
  func write(
    _ page: UInt64, _ pages: UnsafeMutableBufferPointer<UnsafeMutableRawPointer?>, bytes: Int
  ) throws(Errno) {
    try ask(.write(page: page, count: pages.count))
    switch backing {
    case .memory: break
    case .pager(let pager):
      for (i, source) in pages.enumerated() {
        try Self.withCopy(of: source.unsafelyUnwrapped, min(4096, bytes - i * 4096)) {
          (copy) throws(Errno) in
          try PagerCall.run(for: self) { () throws(Errno) in
            try pager.writeBack(page: page + UInt64(i), from: copy)
          }
        }
      }
    case .descriptor:
      let descriptor = descriptors.withLock(\.writing)
      // Nobody could write to it without one.
      precondition(descriptor >= 0, "FileSource: a page of a file that is read only is dirty")
      var done = 0
      while done < bytes {
        let first = done / 4096
        let result = rl_pwritev(
          descriptor, UnsafePointer(pages.baseAddress! + first), UInt32(pages.count - first),
          bytes - first * 4096, (page + UInt64(first)) << 12)
        if result == -Int(EINTR) { continue }
        if result < 0 { throw Errno(rawValue: Int32(-result)) }
        // Fewer bytes than were given, and no error: the next attempt tells why.
        let now = first * 4096 + result
        if now <= done { throw .ioError }
        done = now
      }
    }
  }

  /// A copy of a page that others may write to meanwhile.
  private static func withCopy(
    of page: UnsafeMutableRawPointer, _ count: Int,
    _ body: (UnsafeRawBufferPointer) throws(Errno) -> Void
  ) throws(Errno) {
    let copy = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { copy.deallocate() }
    copyPage(from: page, to: copy)
    try body(UnsafeRawBufferPointer(start: copy, count: count))
  }

  // MARK: the whole

  /// What was written so far is durable when it returns.
  func synchronize() throws(Errno) {
    try ask(.synchronize)
    switch backing {
    case .memory: break
    case .pager(let pager):
      try PagerCall.run(for: self) { () throws(Errno) in try pager.synchronize() }
    case .descriptor:
      let result = rl_fsync(descriptors.withLock(\.any))
      if result < 0 { throw Errno(rawValue: -result) }
    }
  }

  func resize(to size: UInt64) throws(Errno) {
    try ask(.resize(size))
    switch backing {
    case .memory: break
    case .pager(let pager):
      try PagerCall.run(for: self) { () throws(Errno) in try pager.resize(to: size) }
    case .descriptor:
      let descriptor = descriptors.withLock(\.writing)
      if descriptor < 0 { throw .invalidArgument }
      let result = rl_ftruncate(descriptor, size)
      if result < 0 { throw Errno(rawValue: -result) }
    }
  }

  /// Whether a hole behind the end is the source's matter too: a file system refuses ranges that no file of it can have
  /// (Linux `vfs_fallocate`: `EFBIG`).
  var isAskedBehindEnd: Bool {
    if case .descriptor = backing { true } else { false }
  }

  /// Makes a hole. `ENOTSUP`: there are none, zeros have to be written.
  func discard(_ range: Range<UInt64>) throws(Errno) {
    try ask(.discard(range))
    switch backing {
    case .memory: break
    case .pager(let pager):
      try PagerCall.run(for: self) { () throws(Errno) in try pager.discard(range) }
    case .descriptor:
      let descriptor = descriptors.withLock(\.writing)
      if descriptor < 0 { throw .badFileDescriptor }
      let result = rl_punch_hole(
        descriptor, range.lowerBound, range.upperBound - range.lowerBound)
      if result < 0 { throw Errno(rawValue: -result) }
    }
  }

  /// `body` sees what is about to be done from now on; what it returns is the action's error.
  func trace(_ body: @escaping @Sendable (FileAction) -> Errno?) {
    probe.withLock { $0 = body }
    isProbed.store(true, ordering: .releasing)
  }

  /// Lets a test see, and refuse, what is about to be done.
  private func ask(_ action: FileAction) throws(Errno) {
    if !isProbed.load(ordering: .acquiring) { return }
    let seen = probe.withLock { $0 }
    if let seen, let error = seen(action) { throw error }
  }
}

/// Copies a page that others may write to at the same time, word by word.
func copyPage(from source: UnsafeMutableRawPointer, to target: UnsafeMutableRawPointer) {
  // Sound: pages are aligned, and plain bytes.
  let from = source.assumingMemoryBound(to: Atomic<UInt64>.self)
  let to = target.assumingMemoryBound(to: UInt64.self)
  for i in 0..<512 { to[i] = from[i].load(ordering: .relaxed) }
}

/// Writes zeros to a part of a page that others may use at the same time.
func clearPage(_ page: UnsafeMutableRawPointer, _ part: Range<Int>) {
  var i = part.lowerBound
  while i < part.upperBound {
    // Sound: as in `copyPage`.
    if i & 7 == 0, i + 8 <= part.upperBound {
      (page + i).assumingMemoryBound(to: Atomic<UInt64>.self).pointee.store(0, ordering: .relaxed)
      i += 8
    } else {
      (page + i).assumingMemoryBound(to: Atomic<UInt8>.self).pointee.store(0, ordering: .relaxed)
      i += 1
    }
  }
}
