// SPDX-License-Identifier: Apache-2.0
//
// Bytes from a file, from standard input or from memory, in pieces.

import Glibc
import SystemPackage

struct InputBytes: ~Copyable {
  /// As errors name it.
  let name: String
  /// Bytes given out so far.
  private(set) var offset: UInt64 = 0
  private let descriptor: FileDescriptor?
  private let ownsDescriptor: Bool
  private let memory: [UInt8]

  /// Opens the file at `path`; `-` is standard input.
  init(path: String, dashIsStandardInput: Bool = false) throws(RecordingError) {
    memory = []
    if dashIsStandardInput && path == "-" {
      name = "standard input"
      descriptor = .standardInput
      ownsDescriptor = false
      return
    }
    name = path
    do {
      descriptor = try FileDescriptor.open(
        FilePath(path), .readOnly, options: .closeOnExec, retryOnInterrupt: false)
      ownsDescriptor = true
    } catch Errno.interrupted {
      // Opening a pipe waits for its writer.
      throw RecordingError(
        .interrupted, file: path, at: .file, "interrupted", advice: "run it again")
    } catch {
      throw RecordingError(
        .cannotOpen, file: path, at: .file, "cannot be opened: \(error)",
        advice: "check the name and that you may read it")
    }
  }

  /// Reads from a descriptor that the caller keeps open.
  init(descriptor: FileDescriptor, name: String) {
    self.name = name
    self.descriptor = descriptor
    ownsDescriptor = false
    memory = []
  }

  init(bytes: [UInt8], name: String) {
    self.name = name
    memory = bytes
    descriptor = nil
    ownsDescriptor = false
  }

  /// The next `count` bytes, or what is left if that is less.
  mutating func read(upTo count: Int) throws(RecordingError) -> [UInt8] {
    guard let descriptor else {
      let start = Int(offset)
      let end = min(memory.count, start + count)
      offset = UInt64(end)
      return Array(memory[start..<end])
    }
    var failure: (any Error)?
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      while filled < count {
        do {
          let rest = UnsafeMutableRawBufferPointer(
            UnsafeMutableBufferPointer(rebasing: buffer[filled...]))
          // An interrupted read is repeated here; who must react to signals reads with `readSome`.
          let got = try descriptor.read(into: rest)
          if got == 0 { break }
          filled += got
        } catch {
          failure = error
          break
        }
      }
    }
    if let failure { throw cannotRead(failure) }
    offset += UInt64(bytes.count)
    return bytes
  }

  /// Milliseconds for which `readSome` waits: how late an interrupt may be noticed that came just
  /// before the wait.
  private static let patience: Int32 = 200

  /// Reads what is there into `buffer`, at least a byte; 0 at the end, nil when a signal came or
  /// nothing for a while.
  mutating func readSome(
    into buffer: UnsafeMutableRawBufferPointer
  ) throws(RecordingError) -> Int? {
    guard let descriptor else {
      let count = min(buffer.count, memory.count - Int(offset))
      memory[Int(offset)..<(Int(offset) + count)].withUnsafeBytes { buffer.copyMemory(from: $0) }
      offset += UInt64(count)
      return count
    }
    var wait = pollfd(fd: descriptor.rawValue, events: Int16(POLLIN), revents: 0)
    if poll(&wait, 1, Self.patience) <= 0 { return nil }
    do {
      let count = try descriptor.read(into: buffer, retryOnInterrupt: false)
      offset += UInt64(count)
      return count
    } catch Errno.interrupted {
      return nil
    } catch {
      throw cannotRead(error)
    }
  }

  private func cannotRead(_ error: any Error) -> RecordingError {
    RecordingError(
      .cannotRead, file: name, at: .byte(offset), "cannot be read: \(error)",
      advice: "check the disk and that this is a file")
  }

  deinit {
    if ownsDescriptor { try? descriptor?.close() }
  }
}
