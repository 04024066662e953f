// SPDX-License-Identifier: Apache-2.0
//
// A temporary folder that goes away, also when nobody is left to take it away.
//
// Mechanism: its maker holds a lock on it (flock), which ends with the process; whoever makes one takes away those that
// are not locked any more.

import Glibc
import SystemPackage

/// A folder that goes away with the value, and the files in it.
struct ScratchFolder: ~Copyable {
  let path: String
  private let descriptor: Int32

  private static let prefix = "rangeland-record-"

  /// Where such folders are made.
  static var base: String { getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp" }

  /// Bytes that may still be written in `folder`; nil if its file system does not tell.
  static func room(in folder: String) -> UInt64? {
    var status = statvfs()
    guard statvfs(folder, &status) == 0, status.f_blocks > 0 else { return nil }
    // The superuser may use what is kept for it. Servers tell odd numbers, below zero among them.
    let blocks = UInt64(geteuid() == 0 ? status.f_bfree : status.f_bavail)
    let (bytes, overflow) = blocks.multipliedReportingOverflow(by: UInt64(status.f_frsize))
    return overflow ? nil : bytes
  }

  init() throws(RecordingError) {
    let base = Self.base
    Self.removeAbandoned(in: base)
    var template = Array("\(base)/\(Self.prefix)XXXXXX".utf8CString)
    let made = template.withUnsafeMutableBufferPointer { mkdtemp($0.baseAddress!) != nil }
    guard made else {
      throw RecordingError(
        .cannotWrite, file: base, at: .file,
        "a temporary folder cannot be made: \(Errno(rawValue: errno))",
        advice: "set TMPDIR to a folder that can be written")
    }
    path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    // Without a lock (a file system that has none) it is only this value that takes it away, or the next recording.
    descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if descriptor >= 0 { _ = flock(descriptor, LOCK_EX | LOCK_NB) }
  }

  deinit {
    Self.remove(path)
    if descriptor >= 0 { close(descriptor) }
  }

  /// Those whose makers were killed.
  private static func removeAbandoned(in base: String) {
    for name in names(in: base) where name.hasPrefix(prefix) {
      let path = "\(base)/\(name)"
      let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
      if descriptor < 0 { continue }
      defer { close(descriptor) }
      var status = stat()
      // One that is a moment old may not be locked yet.
      guard fstat(descriptor, &status) == 0, status.st_uid == geteuid(),
        time(nil) - status.st_mtim.tv_sec > 2, flock(descriptor, LOCK_EX | LOCK_NB) == 0
      else { continue }
      remove(path)
    }
  }

  private static func remove(_ path: String) {
    for name in names(in: path) { unlink("\(path)/\(name)") }
    rmdir(path)
  }

  private static func names(in path: String) -> [String] {
    guard let folder = opendir(path) else { return [] }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names
  }
}
