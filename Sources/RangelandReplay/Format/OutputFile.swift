// SPDX-License-Identifier: Apache-2.0
//
// A file that appears whole or not at all.
//
// Guarantee: until `commit()` returns the target is untouched; a value that ends without it
// removes what it wrote. Only a regular file is ever replaced, and a link keeps pointing at its target.
// Mechanism: a temporary file in the target's folder, write, fsync, rename (POSIX: atomic).

import Glibc
import SystemPackage

struct OutputFile: ~Copyable {
  let path: String
  /// What `path` leads to.
  private let target: FilePath
  private let temporary: FilePath
  private let descriptor: FileDescriptor
  private var isFinished = false

  /// Creates the temporary file; throws when the folder cannot be written.
  init(path: String) throws(RecordingError) {
    // The rename would put a file in the place of a device, a pipe or a link.
    var name = FilePath(path)
    var status = stat()
    if stat(path, &status) == 0 {
      guard status.st_mode & S_IFMT == S_IFREG else {
        if status.st_mode & S_IFMT == S_IFDIR { throw Self.failure(path, Errno.isDirectory) }
        throw RecordingError(
          .cannotWrite, file: path, at: .file,
          "is there already and is not a file that can be replaced",
          advice: "name a file, such as program.rangeland")
      }
      if let resolved = realpath(path, nil) {
        name = FilePath(platformString: resolved)
        free(resolved)
      }
    }
    let target = name
    guard let last = name.lastComponent, last.kind == .regular else {
      throw RecordingError(
        .cannotWrite, file: path, at: .file, "the name is not that of a file",
        advice: "name a file, such as program.rangeland")
    }
    name.removeLastComponent()
    // The process id keeps two writers apart; a file that a killed one left behind is replaced.
    name.append(".\(last.string).\(getpid()).partial")
    let opened: FileDescriptor
    do {
      opened = try FileDescriptor.open(
        name, .writeOnly, options: [.create, .truncate, .closeOnExec],
        permissions: [.ownerReadWrite, .groupRead, .otherRead])
    } catch {
      throw Self.failure(path, error)
    }
    self.path = path
    self.target = target
    temporary = name
    descriptor = opened
  }

  mutating func write(_ bytes: [UInt8]) throws(RecordingError) {
    do {
      try descriptor.writeAll(bytes)
    } catch {
      throw Self.failure(path, error)
    }
  }

  /// Puts the file in its place.
  mutating func commit() throws(RecordingError) {
    guard fsync(descriptor.rawValue) == 0 else {
      throw Self.failure(path, Errno(rawValue: errno))
    }
    let status = temporary.withPlatformString { from in
      target.withPlatformString { to in rename(from, to) }
    }
    guard status == 0 else { throw Self.failure(path, Errno(rawValue: errno)) }
    isFinished = true
  }

  private static func failure(_ path: String, _ error: any Error) -> RecordingError {
    RecordingError(
      .cannotWrite, file: path, at: .file, "cannot be written: \(error)",
      advice: (error as? Errno) == .noSpace
        ? "make room on the disk or write to another one"
        : "check that the folder exists and can be written, or write to another one")
  }

  deinit {
    try? descriptor.close()
    if !isFinished { _ = temporary.withPlatformString { unlink($0) } }
  }
}
