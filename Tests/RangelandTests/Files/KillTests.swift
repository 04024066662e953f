// SPDX-License-Identifier: Apache-2.0
//
// A process that is killed: what it was told is safe is in the file.

import Glibc
import RangelandTestSupport
import SystemPackage
import Testing

@Suite struct KillTests {
  private static let pages: UInt64 = 24

  @Test(arguments: TestFile.folders)
  func `a process killed at a random point leaves every byte that it was told is safe`(
    _ folder: String
  ) throws {
    var random = SeededRandom(for: "kills in \(folder)")
    var acknowledged: UInt64 = 0
    for _ in 0..<8 {
      let file = try TestFile(pages: 0, in: folder)
      try #require(ftruncate(file.descriptor.rawValue, off_t(Self.pages * 4096)) == 0)
      let safe = try withWatchdog(seconds: 120, "a process that writes") {
        try runAndKill(file.path, after: 1 + random.below(300), turns: random.below(100))
      }
      acknowledged += safe.reduce(0, +)
      for (thread, last) in safe.enumerated() { try check(file, thread, last) }
    }
    print("\(folder): \(acknowledged) rounds were acknowledged")
    #expect(acknowledged > 8)
  }

  /// Runs the writer until it has acknowledged so many rounds, and some time more; the last round of each thread.
  private func runAndKill(_ path: String, after rounds: UInt64, turns: UInt64) throws -> [UInt64] {
    // Not for the processes that other tests start meanwhile; with the borders of messages.
    let kind = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    var ends: [Int32] = [0, 0]
    let made = socketpair(AF_UNIX, kind, 0, &ends)
    try #require(made == 0)
    let (readEnd, writeEnd) = (
      FileDescriptor(rawValue: ends[0]), FileDescriptor(rawValue: ends[1])
    )
    defer { try? readEnd.close() }
    let child = try spawn([path, "\(Self.pages)"], output: writeEnd)
    try writeEnd.close()
    var last = [UInt64](repeating: 0, count: WriterRounds.threads)
    var (count, isKilled) = (0 as UInt64, false)
    while let message = try next(readEnd) {
      #expect(message.round == last[message.thread] + 1)
      last[message.thread] = message.round
      count += 1
      if count >= rounds, !isKilled {
        for _ in 0..<turns { sched_yield() }
        kill(child, SIGKILL)
        isKilled = true
      }
    }
    var status: Int32 = 0
    while waitpid(child, &status, 0) < 0 && errno == EINTR {}
    #expect(isKilled && status & 0x7f == SIGKILL, "it ended by itself: \(status)")
    return last
  }

  /// The next acknowledgement; `nil` = the process has gone.
  private func next(_ end: FileDescriptor) throws -> (thread: Int, round: UInt64)? {
    var message: (UInt64, UInt64) = (0, 0)
    let count = try withUnsafeMutableBytes(of: &message) { (bytes) -> Int in
      var done = 0
      while done < bytes.count {
        let now = try end.read(into: UnsafeMutableRawBufferPointer(rebasing: bytes[done...]))
        if now == 0 { break }
        done += now
      }
      return done
    }
    return count == 16 ? (Int(message.0), message.1) : nil
  }

  private func spawn(_ arguments: [String], output: FileDescriptor) throws -> pid_t {
    let folder = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4097) {
      let length = readlink("/proc/self/exe", $0.baseAddress!, 4096)
      $0[max(0, length)] = 0
      return FilePath(platformString: $0.baseAddress!).removingLastComponent()
    }
    let program = folder.appending("FileWriter").string
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, output.rawValue, 1)
    var strings = ([program] + arguments).map { strdup($0) } + [nil]
    defer { for string in strings { free(string) } }
    var child: pid_t = 0
    let status = posix_spawn(&child, program, &actions, nil, &strings, environ)
    try #require(status == 0, "\(program): \(Errno(rawValue: status))")
    return child
  }

  /// Each page holds the last round that was acknowledged and wrote there, or the one that was under way.
  private func check(_ file: TestFile, _ thread: Int, _ last: UInt64) throws {
    for page in 0..<Self.pages {
      let safe = (1...max(last, 1)).last {
        $0 <= last && WriterRounds.pages(thread, $0, of: Self.pages).contains(page)
      }
      var value: UInt64 = 0
      let offset = Int64(page * 4096) + Int64(thread) * 64
      _ = try withUnsafeMutableBytes(of: &value) {
        try file.descriptor.read(fromAbsoluteOffset: offset, into: $0)
      }
      let isNext =
        value == last + 1 && WriterRounds.pages(thread, value, of: Self.pages).contains(page)
      #expect(
        value == safe ?? 0 || isNext, "page \(page), thread \(thread): \(value) after round \(last)"
      )
    }
  }
}
