// SPDX-License-Identifier: Apache-2.0
//
// `rangeland simulate` and the pages and parts of `rangeland compare`, as a user runs them.

import Foundation
import Testing

@testable import RangelandReplay

/// A recording in a file, for one test.
private func withRecording(_ body: (String, TemporaryFolder) throws -> Void) throws {
  let folder = try TemporaryFolder()
  var random = SeededGenerator("simulate")
  let recording = try RandomProgram.recording(threads: 3, operations: 60, using: &random)
  let path = folder.path + "/small.rangeland"
  try recording.write(to: path)
  try body(path, folder)
}

@Suite struct SimulateCommandTests {
  @Test func `The same recording gives the same bytes`() throws {
    try withRecording { path, _ in
      let first = try Tool.shell("\"$TOOL\" simulate \"$1\" --cores 1,2 --json", [path])
      #expect(first.status == 0, "\(first.errors)")
      #expect(first.output.contains("\"schemaVersion\": 1"))
      #expect(first.output.contains("\"calibrated\": false"))
      let again = try Tool.shell("\"$TOOL\" simulate \"$1\" --cores 1,2 --json", [path])
      #expect(first.output == again.output)
      let text = try Tool.shell("\"$TOOL\" simulate \"$1\"", [path])
      #expect(text.status == 0)
      #expect(text.output.contains("UNCALIBRATED"))
      #expect(text.output.contains("left out: 8, 32, 64 processors"))
    }
  }

  @Test func `A trace is JSON with a track for each thread`() throws {
    try withRecording { path, folder in
      let trace = folder.path + "/trace.json"
      let result = try Tool.shell(
        "\"$TOOL\" simulate \"$1\" --cores 2 --policy semaphore --trace \"$2\"", [path, trace])
      #expect(result.status == 0, "\(result.errors)")
      let data = try #require(FileManager.default.contents(atPath: trace))
      let object = try #require(
        try JSONSerialization.jsonObject(with: data) as? [String: Any])
      let events = try #require(object["traceEvents"] as? [[String: Any]])
      let names = events.filter { $0["name"] as? String == "thread_name" }
      #expect(names.count == 3)
      // Of one thread no two states overlap.
      for thread in 0..<3 {
        let spans = events.filter { $0["ph"] as? String == "X" && $0["tid"] as? Int == thread }
          .map { ($0["ts"] as! Double, $0["dur"] as! Double) }
        for (one, next) in zip(spans, spans.dropFirst()) {
          #expect(one.0 + one.1 <= next.0 + 0.0005)
        }
      }
      #expect(events.contains { $0["name"] as? String == "map" })
    }
  }

  @Test(arguments: [
    ("--cores 0", 64, "--cores takes"), ("--cores 65", 64, "beyond 64"),
    ("--cores 2,x", 64, "--cores takes"), ("--cores ''", 64, "--cores takes"),
    ("--policy none", 64, "--policy takes semaphore"), ("--slice 10", 64, "--slice takes"),
    ("--fault-time 9999999999", 64, "--fault-time takes"),
    ("--trace /tmp/x", 64, "--trace takes one run"),
    ("--cores 8", 1, "no more than 2 processors"),
    ("--cores 2 --policy ranged --trace /nowhere/at/all", 1, "cannot be written"),
  ])
  func `What is wrong is said`(_ options: String, _ status: Int, _ message: String) throws {
    try withRecording { path, _ in
      let result = try Tool.shell("\"$TOOL\" simulate \"$1\" \(options)", [path])
      #expect(result.status == Int32(status))
      #expect(result.errors.contains(message), "\(result.errors)")
      #expect(result.output.isEmpty)
    }
  }

  @Test func `What is no recording is refused`() throws {
    let result = try Tool.shell(
      "echo no > \"$1\"/x; \"$TOOL\" simulate \"$1\"/x; S=$?; exit $S",
      [
        try TemporaryFolder().path
      ])
    #expect(result.status != 0)
  }

  @Test func `compare shows all four parts and writes a page`() throws {
    try withRecording { path, folder in
      let page = folder.path + "/page.html"
      let result = try Tool.shell(
        "\"$TOOL\" compare --rounds 1 --html \"$2\" \"$1\"", [path, page])
      #expect(result.status == 0, "\(result.errors)")
      for part in ["== Recorded ==", "== Simulated ==", "== Measured ==", "== Verdict =="] {
        #expect(result.output.contains(part))
      }
      #expect(result.output.contains("Locking costs this program"))
      let text = try String(contentsOfFile: page, encoding: .utf8)
      #expect(text.hasPrefix("<!DOCTYPE html>"))
      #expect(text.contains("<h3>Measured</h3>"))
      let refused = try Tool.shell(
        "\"$TOOL\" compare --rounds 1 --html /nowhere/page.html \"$1\"", [path])
      #expect(refused.status == 1)
      #expect(refused.errors.contains("cannot be written"))
    }
  }
}
