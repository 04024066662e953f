// SPDX-License-Identifier: Apache-2.0
//
// The tool as a user runs it: in a shell, with a watchdog on every run.

import Foundation

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
  static func shell(_ script: String, _ arguments: [String] = []) throws -> Result {
    let folder = try TemporaryFolder()
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/bin/bash")
    process.arguments = ["-c", script, "bash"] + arguments
    process.environment = ["TOOL": path, "PATH": "/usr/bin:/bin"]
    for name in ["out", "err"] {
      _ = FileManager.default.createFile(atPath: folder.path + "/" + name, contents: nil)
    }
    process.standardOutput = FileHandle(forWritingAtPath: folder.path + "/out")
    process.standardError = FileHandle(forWritingAtPath: folder.path + "/err")
    process.standardInput = FileHandle.nullDevice
    let watchdog = DispatchWorkItem {
      fatalError("the tool has not ended after 60 seconds: \(script)")
    }
    DispatchQueue.global().asyncAfter(deadline: .now() + 60, execute: watchdog)
    try process.run()
    process.waitUntilExit()
    watchdog.cancel()
    func text(_ name: String) -> String {
      String(
        decoding: FileManager.default.contents(atPath: folder.path + "/" + name) ?? Data(),
        as: UTF8.self)
    }
    return Result(status: process.terminationStatus, output: text("out"), errors: text("err"))
  }
}
