// SPDX-License-Identifier: Apache-2.0
//
// The tool as a user runs it: in a shell, with a watchdog on every run.

import Foundation
import SystemPackage
import Testing

@testable import RangelandReplay

enum Tool {
  struct Result {
    var status: Int32
    var output: String
    var errors: String
  }

  private static let path = URL(
    fileURLWithPath: (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
      ?? ""
  ).deletingLastPathComponent().appendingPathComponent("rangeland").path

  /// Runs `script` in a shell, in which `$TOOL` is the program and `$1`... are `arguments`.
  ///
  /// Not Foundation's `Process`: it passes the signals on that this thread blocks (a worker of
  /// Dispatch blocks SIGTERM, and a script's `kill` then does nothing), and it waits for all that
  /// the script left running.
  static func shell(_ script: String, _ arguments: [String] = []) throws -> Result {
    let folder = try TemporaryFolder()
    let nothing = try FileDescriptor.open("/dev/null", .readOnly)
    defer { try? nothing.close() }
    let streams = try ["out", "err"].map { name in
      try FileDescriptor.open(
        FilePath(folder.path + "/" + name), .writeOnly, options: [.create, .closeOnExec],
        permissions: .ownerReadWrite)
    }
    defer { for stream in streams { try? stream.close() } }
    let child = try ChildProcess(
      [
        "/usr/bin/env", "-i", "TOOL=\(path)", "PATH=/usr/bin:/bin", "/bin/bash", "-c", script,
        "bash",
      ]
        + arguments,
      descriptors: [(nothing.rawValue, 0), (streams[0].rawValue, 1), (streams[1].rawValue, 2)])
    // Only what hangs takes ten minutes, on any machine.
    let ending = try #require(
      child.wait(milliseconds: 600_000), "the tool has not ended after 10 minutes: \(script)")
    func text(_ name: String) -> String {
      String(
        decoding: FileManager.default.contents(atPath: folder.path + "/" + name) ?? Data(),
        as: UTF8.self)
    }
    let status: Int32
    switch ending {
    case .exited(let code): status = code
    case .killed(let signal): status = 128 + signal
    }
    return Result(status: status, output: text("out"), errors: text("err"))
  }
}
