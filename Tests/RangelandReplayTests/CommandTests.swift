// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import RangelandReplay

/// `import` and `show` as a user runs them.
@Suite struct CommandTests {
  @Test func `import then show works and says what it did`() throws {
    let folder = try TemporaryFolder()
    try wholeRun.write(toFile: folder.path + "/t", atomically: false, encoding: .utf8)
    let made = try Tool.shell(
      "cd \"$1\" && $TOOL import t -o r && cat t | $TOOL import - -o s && cmp r s", [folder.path])
    #expect(made.status == 0, "\(made.errors)")
    #expect(made.output.contains("2 threads, 6 calls, 1 faults"))
    #expect(made.errors.contains("left out: 2 events of other processes"))
    #expect(try folder.contents == ["r", "s", "t"])
    let shown = try Tool.shell("cd \"$1\" && $TOOL show r", [folder.path])
    #expect(shown.status == 0 && shown.errors.isEmpty)
    #expect(shown.output.contains("5 at the start (recorded), 6 at the peak"))
  }

  @Test func `json carries its version and parses`() throws {
    let shown = try Tool.shell("$TOOL show --json")
    #expect(shown.status == 0)
    let value = try JSONSerialization.jsonObject(with: Data(shown.output.utf8))
    let object = try #require(value as? [String: Any])
    #expect(object["schemaVersion"] as? Int == 1)
    #expect(object["program"] as? String == "mariadbd")
    let calls = try #require(object["calls"] as? [[String: Any]])
    #expect(calls.contains { $0["kind"] as? String == "mmap" })
  }

  @Test func `bad usage is 64 and help is 0`() throws {
    #expect(try Tool.shell("$TOOL show a b c").status == 64)
    #expect(try Tool.shell("$TOOL nonsense").status == 64)
    #expect(try Tool.shell("$TOOL import x").status == 64)
    #expect(try Tool.shell("$TOOL --help").status == 0)
  }

  @Test func `bad input is 1, with a message and no output`() throws {
    let folder = try TemporaryFolder()
    let run = try Tool.shell(
      "cd \"$1\"; echo hello > t; $TOOL import t -o r; a=$?; $TOOL show t; b=$?; $TOOL show none; echo $a $b $?",
      [folder.path])
    #expect(run.output == "1 1 1\n")
    #expect(run.errors.contains("t, line 1: "))
    #expect(run.errors.contains("t, byte 0: this is not a Rangeland recording"))
    #expect(run.errors.contains("none: cannot be opened"))
    #expect(try folder.contents == ["t"])
  }

  @Test func `a write that fails half way is 1, keeps the old file and leaves no other`() throws {
    let folder = try TemporaryFolder()
    // The limit on the size of files stands for a full disk: the write fails.
    let run = try Tool.shell(
      """
      cd "$1"; echo old > r; trap '' XFSZ
      for i in {1..20000}; do
        echo "a 5/5 [000] $i.5: exceptions:page_fault_user: address=0x$((RANDOM))000 ip=0x4 error_code=0x4"
      done > t
      ulimit -f 4; $TOOL import t -o r; echo $?; cat r
      """, [folder.path])
    #expect(run.output == "1\nold\n")
    #expect(run.errors.contains("r: cannot be written"))
    #expect(try folder.contents == ["r", "t"])
  }

  @Test func `results that cannot be printed are an error`() throws {
    #expect(try Tool.shell("$TOOL show > /dev/full").status == 1)
  }

  @Test func `an interrupt is 130 and leaves nothing`() throws {
    let folder = try TemporaryFolder()
    // The tool has set up its handler when it has opened the pipe; the open waits for both ends.
    let run = try Tool.shell(
      """
      cd "$1"; mkfifo p; set -m
      $TOOL import p -o r & tool=$!
      exec 9> p; kill -INT $tool; wait $tool; echo $?
      """, [folder.path])
    #expect(run.output.hasSuffix("130\n"), "\(run.output) \(run.errors)")
    #expect(try folder.contents == ["p"])
  }
}
