// SPDX-License-Identifier: Apache-2.0
//
// Files for the tests of file mappings.

import Glibc
import Synchronization
import SystemPackage

@testable import Rangeland

/// A file of its own in a folder for temporary files, gone with this value.
final class TestFile: Sendable {
  let descriptor: FileDescriptor
  let path: String

  /// File systems that there are here: a disk's, and shared memory.
  static let folders: [String] = ["/tmp", "/dev/shm"].filter { access($0, W_OK) == 0 }

  /// - Parameter pages: page i is filled with bytes 1 + i.
  init(pages: Int, in folder: String = TestFile.folders[0]) throws {
    var template = Array((folder + "/rangeland-XXXXXX").utf8CString)
    descriptor = FileDescriptor(rawValue: mkstemp(&template))
    path = template.withUnsafeBytes { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    for i in 0..<pages {
      _ = try descriptor.writeAll([UInt8](repeating: UInt8(truncatingIfNeeded: 1 + i), count: 4096))
    }
  }

  deinit {
    try? descriptor.close()
    unlink(path)
  }

  /// What the operating system has.
  func byte(_ offset: Int64) throws -> UInt8 {
    var byte: UInt8 = 0
    let count = try withUnsafeMutableBytes(of: &byte) {
      try descriptor.read(fromAbsoluteOffset: offset, into: $0)
    }
    return count == 1 ? byte : 255
  }

  func open(_ mode: FileDescriptor.AccessMode) throws -> FileDescriptor {
    try FileDescriptor.open(path, mode)
  }
}

/// A pager whose pages hold their numbers, and which can be made to fail and to wait.
final class TestPager: Pager {
  struct State {
    var fills: [UInt64] = []
    var written: [UInt64: UInt8] = [:]
    var failing: [UInt64: Errno] = [:]
    var writeFailure: Errno?
    var synchronizes = 0
    /// Runs before a page is kept.
    var writing: (@Sendable (UInt64) -> Void)?
  }
  let state = Latched(State())
  /// Runs before a page is filled.
  let before: (@Sendable (UInt64) -> Void)?
  let readAhead: Int

  init(readAhead: Int = 1, before: (@Sendable (UInt64) -> Void)? = nil) {
    (self.readAhead, self.before) = (readAhead, before)
  }

  func fill(page: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
    before?(page)
    let (value, error) = state.withLock { state -> (UInt8, Errno?) in
      state.fills.append(page)
      return (
        state.written[page] ?? UInt8(truncatingIfNeeded: page + 1), state.failing[page]
      )
    }
    if let error { throw error }
    bytes.initializeMemory(as: UInt8.self, repeating: value)
  }

  func writeBack(page: UInt64, from bytes: UnsafeRawBufferPointer) throws(Errno) {
    state.withLock { $0.writing }?(page)
    let error = state.withLock { state -> Errno? in
      if let error = state.writeFailure { return error }
      state.written[page] = bytes[0]
      return nil
    }
    if let error { throw error }
  }

  func synchronize() throws(Errno) { state.withLock { $0.synchronizes += 1 } }
}

/// Two spaces on one memory that writes nothing back in the background: tests look at what is not written yet.
func makeSpaces(
  _ policy: LockPolicy, frames: Int = 1 << 14
) throws -> (PhysicalMemory, AddressSpace, AddressSpace) {
  let memory = try PhysicalMemory(frameLimit: frames)
  memory.files.writer.stop()
  return (
    memory, try AddressSpace(policy: policy, memory: memory),
    try AddressSpace(policy: policy, memory: memory)
  )
}

func byte(_ space: AddressSpace, _ address: Address) throws -> UInt8 {
  try space.load(UInt8.self, at: address)
}
