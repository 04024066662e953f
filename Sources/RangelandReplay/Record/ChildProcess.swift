// SPDX-License-Identifier: Apache-2.0
//
// A program that is started, waited for and interrupted.
//
// Guarantee: a value that goes away has been waited for: a child that still runs then is killed.
// Mechanism: posix_spawnp; descriptors of ours are close-on-exec, and only those named are passed on.

import Glibc
import SystemPackage

final class ChildProcess {
  typealias Ending = ProgramEnding

  let id: pid_t
  private var ending: Ending?

  /// Starts `arguments`, the first of which is looked for in `PATH`.
  ///
  /// - Parameter descriptors: what the child finds under which number.
  init(
    _ arguments: [String], descriptors: [(ours: Int32, childs: Int32)] = []
  ) throws(RecordingError) {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for descriptor in descriptors {
      posix_spawn_file_actions_adddup2(&actions, descriptor.ours, descriptor.childs)
    }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // A parent may have left it blocked; a blocked interrupt would end no recording.
    var mask = sigset_t()
    sigemptyset(&mask)
    posix_spawnattr_setsigmask(&attributes, &mask)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
    words.append(nil)
    defer { for word in words { free(word) } }
    var child: pid_t = 0
    let status = posix_spawnp(&child, arguments[0], &actions, &attributes, words, environ)
    guard status == 0 else {
      throw RecordingError(
        .cannotRecord, file: arguments[0], at: .file,
        "cannot be started: \(Errno(rawValue: status))",
        advice: "check the name and that it may be run")
    }
    id = child
  }

  func interrupt() { if ending == nil { kill(id, SIGINT) } }

  /// How it ended, or nil if it has not within about `milliseconds`.
  func wait(milliseconds: Int32) -> Ending? {
    if let ending { return ending }
    var waited: Int32 = 0
    while true {
      var status: Int32 = 0
      let got = waitpid(id, &status, WNOHANG)
      if got == id {
        let signal = status & 0x7f
        ending = signal == 0 ? .exited(status >> 8 & 0xff) : .killed(signal)
        return ending
      }
      // Somebody else waited for it.
      if got < 0 && errno != EINTR { ending = .exited(0) }
      if ending != nil || waited >= milliseconds { return ending }
      _ = poll(nil, 0, 10)
      waited += 10
    }
  }

  deinit {
    guard ending == nil else { return }
    kill(id, SIGKILL)
    var status: Int32 = 0
    while waitpid(id, &status, 0) < 0 && errno == EINTR {}
  }
}

/// How a program ended.
public enum ProgramEnding: Equatable, Sendable {
  /// With this status.
  case exited(Int32)
  /// By this signal.
  case killed(Int32)
}

/// A pipe whose ends no other child inherits.
struct Pipe: ~Copyable {
  let reading: FileDescriptor
  private var writing: FileDescriptor?

  init() throws(RecordingError) {
    var ends: (Int32, Int32) = (0, 0)
    let status = withUnsafeMutablePointer(to: &ends) {
      $0.withMemoryRebound(to: Int32.self, capacity: 2) { Glibc.pipe($0) }
    }
    guard status == 0 else {
      throw RecordingError(
        .cannotRecord, file: "a pipe", at: .file, "cannot be made: \(Errno(rawValue: errno))",
        advice: "close other programs")
    }
    _ = fcntl(ends.0, F_SETFD, FD_CLOEXEC)
    _ = fcntl(ends.1, F_SETFD, FD_CLOEXEC)
    reading = FileDescriptor(rawValue: ends.0)
    writing = FileDescriptor(rawValue: ends.1)
  }

  var writer: Int32 { writing?.rawValue ?? -1 }

  /// From now on the end shows when the last child that has the other end closes it.
  mutating func closeWriter() {
    try? writing?.close()
    writing = nil
  }

  deinit {
    try? reading.close()
    try? writing?.close()
  }
}
