// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import RangelandReplay

/// `compare` as a user runs it.
@Suite struct CompareCommandTests {
  private func object(_ text: String) throws -> [String: Any] {
    try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }

  private func write(_ events: [RecordedEvent], to path: String) throws {
    try Recording(bytes: fileBytes(events), name: "test").write(to: path)
  }

  private let small: [RecordedEvent] = [
    beginning(0, at: 0), beginning(1, at: 1, parent: 0),
    call(
      .mmap, CallArguments(0, 8192, 3, 0x22, .max, 0), thread: 1, at: 2, result: 0x10_0000),
    fault(0x10_0000, thread: 0, at: 5),
    call(.brk, CallArguments(0), at: 7, result: 0x5000_0000),
    call(.munmap, CallArguments(0x10_0000, 8192), at: 9),
  ]

  @Test func `json has the promised shape`() throws {
    let folder = try TemporaryFolder()
    try write(small, to: folder.path + "/r")
    let run = try Tool.shell("cd \"$1\" && $TOOL compare r r --rounds 1 --json", [folder.path])
    #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
    let report = try object(run.output)
    #expect(report["schemaVersion"] as? Int == 1)
    let recordings = try #require(report["recordings"] as? [[String: Any]])
    #expect(recordings.count == 2)
    let recording = recordings[0]
    #expect(recording["name"] as? String == "r")
    #expect(recording["threads"] as? Int == 2)
    #expect(recording["operations"] as? Int == 4)
    #expect(recording["substituted"] as? [String: Int] == [:])
    let rows = try #require(recording["rows"] as? [[String: Any]])
    #expect(
      rows.map { $0["policy"] as? String } == ["semaphore", "wholeRange", "ranged", "perVMA"])
    for row in rows {
      for key in [
        "operations", "elapsedSeconds", "operationsPerSecond", "waits", "falseWaits",
        "waitSeconds", "falseWaitSeconds", "dependencyWaitSeconds", "waitP50Nanoseconds",
        "waitP99Nanoseconds", "waitMaxNanoseconds",
      ] { #expect(row[key] is NSNumber, "\(key)") }
      #expect(row["resultMismatches"] as? Int == 0)
      #expect(row["blocked"] is [[String: Any]])
      let costs = try #require(row["byOperation"] as? [[String: Any]])
      #expect(costs.map { $0["operation"] as? String } == ["map", "unmap", "fault", "break"])
      #expect(costs.allSatisfy { $0["count"] as? Int == 1 })
    }
    // Nothing of it lies where the kernel places.
    let placement = try #require(recording["placement"] as? [String: Any])
    #expect(placement["asked"] as? Int == 1 && placement["agreed"] as? Int == 0)
    #expect(placement["base"] is NSNull && placement["unfollowed"] as? Int == 0)
    let elsewhere = try #require(placement["elsewhere"] as? [[String: Any]])
    #expect(elsewhere.map { $0["calls"] as? Int } == [1])
    let kernel = try #require(recording["kernel"] as? [String: Any])
    #expect(kernel["unavailable"] == nil, "\(kernel)")
    #expect(kernel["operations"] as? Int == 4 && kernel["resultMismatches"] as? Int == 0)
    #expect((kernel["release"] as? String)?.isEmpty == false)
    #expect(kernel["leftOut"] as? [String: Int] == [:])
    for key in ["elapsedSeconds", "operationsPerSecond", "dependencyWaitSeconds", "faults"] {
      #expect(kernel[key] is NSNumber, "\(key)")
    }
    let costs = try #require(kernel["byOperation"] as? [[String: Any]])
    #expect(costs.map { $0["operation"] as? String } == ["map", "unmap", "fault", "break"])
  }

  @Test func `text and page tell where mappings were placed`() throws {
    let folder = try TemporaryFolder()
    try write(small, to: folder.path + "/r")
    let run = try Tool.shell(
      "cd \"$1\" && $TOOL compare r --rounds 1 --html page && grep -c '<h3>Placed</h3>' page",
      [folder.path])
    #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
    #expect(
      run.output.contains("== Placed ==\n0 of 1 addresses that the program left to the kernel"))
    #expect(run.output.contains("1 elsewhere: the kernel passed over a gap"))
    #expect(run.output.hasSuffix("\n1\n"))
  }

  @Test func `without its helper the kernel is left out, with a word`() throws {
    let folder = try TemporaryFolder()
    try write(small, to: folder.path + "/r")
    let run = try Tool.shell(
      """
      cd "$1"; mkdir alone; ln "$TOOL" alone/rangeland 2> /dev/null || cp "$TOOL" alone/rangeland
      alone/rangeland compare r --rounds 1 --html page && grep -c 'was not measured' page
      """, [folder.path])
    #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
    let text = run.output.replacingOccurrences(of: "\n", with: " ")
    #expect(text.contains("the kernel itself was not measured: there is no "), "\(text)")
    #expect(text.contains("/alone/KernelHelper: the helper is built with the package"))
    #expect(run.output.hasSuffix("\n1\n"))
  }

  @Test func `text says what the waits are`() throws {
    let folder = try TemporaryFolder()
    try write(small, to: folder.path + "/r")
    let run = try Tool.shell("cd \"$1\" && $TOOL compare r --rounds 1", [folder.path])
    #expect(run.status == 0 && run.errors.isEmpty, "\(run.errors)")
    #expect(run.output.contains("r: program, 2 threads, 4 operations"))
    #expect(run.output.contains("perVMA       kernel\n"))
    #expect(run.output.contains("with the same calls in a helper process"))
    #expect(!run.output.contains("other recordings ship"))
    #expect(
      run.output.contains(
        "replayed without think time: these waits compare policies; they are not what the program waited"
      ))
  }

  @Test func `bad recordings are 1, without output`() throws {
    let folder = try TemporaryFolder()
    try write(small, to: folder.path + "/r")
    let run = try Tool.shell(
      """
      cd "$1"; head -c 90 r > cut; : > empty; echo text > foreign
      for f in cut empty foreign none .; do $TOOL compare r $f; echo $?; done
      """, [folder.path])
    #expect(run.output == "1\n1\n1\n1\n1\n", "\(run.output)")
    for message in [
      "cut, byte 90: the recording is cut off here", "empty: the file is empty",
      "foreign, byte 0: this is not a Rangeland recording", "none: cannot be opened",
    ] { #expect(run.errors.contains(message), "\(run.errors)") }
    #expect(run.errors.split(separator: "\n").count == 5)
  }

  @Test func `a recording with nothing to replay is 1, bad usage 64`() throws {
    let folder = try TemporaryFolder()
    try write([beginning(0, at: 0)], to: folder.path + "/r")
    let run = try Tool.shell(
      "cd \"$1\"; $TOOL compare r; echo $?; $TOOL compare r --rounds 0; echo $?; $TOOL compare r --all; echo $?",
      [folder.path])
    #expect(run.output == "1\n64\n64\n")
    #expect(run.errors.contains("--all takes no recordings"))
    #expect(run.errors.contains("r: the recording holds no operation to replay"))
  }

  @Test func `what would hold more memory than allowed is refused before it begins`() throws {
    let folder = try TemporaryFolder()
    var events = [beginning(0, at: 0)]
    events.append(
      call(.mmap, CallArguments(0, 8 << 20, 3, 0x8022, .max, 0), at: 1, result: 0x10_0000))
    try write(events, to: folder.path + "/r")
    let run = try Tool.shell(
      """
      cd "$1"; $TOOL compare r --memory 7; echo $?; $TOOL compare r --memory 0; echo $?
      $TOOL compare r --memory 9 --rounds 1 > out; echo $?
      """, [folder.path])
    #expect(run.output == "1\n64\n0\n", "\(run.errors)")
    #expect(
      run.errors.contains("a replay holds up to 8 MiB of pages at once, and 7 MiB may be used"))
  }

  @Test func `an interrupt is 130`() throws {
    let run = try Tool.shell(
      """
      set -m; $TOOL compare --rounds 1000 & tool=$!
      # Once it has many threads it is at work; it may have ended before.
      until [ $(ls /proc/$tool/task | wc -l) -gt 20 ]; do kill -0 $tool || break; done
      kill -INT $tool; wait $tool; echo $?
      """)
    #expect(run.output == "130\n", "\(run.output) \(run.errors)")
    #expect(run.errors.contains("interrupted"))
  }
}
