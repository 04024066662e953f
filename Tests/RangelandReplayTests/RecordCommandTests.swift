// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import RangelandReplay

/// `record` as a user runs it. What this machine cannot record is skipped, and said by the tool.
@Suite(.serialized) struct RecordCommandTests {
  private static let canUsePerf = Tracing().perfProblem == nil
  private static let canUseStrace = Tracing().straceProblem == nil

  private func object(_ text: String) throws -> [String: Any] {
    try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }

  @Test func `bad usage is 64`() throws {
    for arguments in [
      "", "-o r", "-o r -p 1 -- ls", "-o r --seconds 3 ls", "-o r -p 1 --seconds 0",
      "-o r --tool gdb ls", "-p x -o r", "-o r --call-chains lbr ls",
      "-o r --call-chains fp --tool strace ls",
    ] {
      #expect(try Tool.shell("$TOOL record \(arguments)").status == 64, "\(arguments)")
    }
  }

  @Test func `what is missing is said, with what to do, and nothing is left`() throws {
    let folder = try TemporaryFolder()
    let run = try Tool.shell(
      """
      cd "$1"
      $TOOL record -o r --tool perf ./none; echo $?
      $TOOL record -o no/r ls; echo $?
      $TOOL record -o r -p 2147483647; echo $?
      PATH=/none $TOOL record -o r --tool perf /bin/true; echo $?
      PATH=/none $TOOL record -o r --tool strace /bin/true; echo $?
      """, [folder.path])
    #expect(run.output == "1\n1\n1\n1\n1\n")
    #expect(run.errors.contains("perf is not installed; install it"))
    #expect(run.errors.contains("strace is not installed; install it"))
    #expect(run.errors.contains("no/r: cannot be written"))
    #expect(try folder.contents == [])
  }

  @Test func `tracefs that is not there or hidden is told apart`() throws {
    let folder = try TemporaryFolder()
    for tool in ["perf", "strace"] {
      _ = FileManager.default.createFile(
        atPath: folder.path + "/" + tool, contents: nil, attributes: [.posixPermissions: 0o755])
    }
    let none = Tracing(folders: [folder.path + "/none"], path: folder.path)
    #expect(none.perfProblem?.advice.contains("mount -t tracefs") == true)
    #expect(none.straceProblem == nil)
    for path in ["events/syscalls/sys_enter_mmap", "events/exceptions/page_fault_user"] {
      try FileManager.default.createDirectory(
        atPath: folder.path + "/" + path, withIntermediateDirectories: true)
    }
    let some = Tracing(folders: [folder.path], path: folder.path)
    #expect(some.events.contains("syscalls:sys_exit_mmap"))
    #expect(some.events.contains("exceptions:page_fault_user"))
    #expect(some.missing.contains { $0.contains("waits for mmap_lock are not recorded") })
    // No waits, no chains: said, where they are asked for.
    var options = RecordOptions(.program(["/bin/true"]), callChains: .dwarf)
    func lacks(_ word: String, _ options: RecordOptions, _ tracing: Tracing) throws -> Bool {
      try Recorder(options, tracing: tracing).missing.contains { $0.contains(word) }
    }
    if some.perfProblem == nil {
      #expect(try lacks("call chains of waits for mmap_lock are not recorded", options, some))
    }
    #expect(try lacks("call chains of waits for mmap_lock are not recorded", options, none))
    options.callChains = nil
    #expect(try !lacks("call chains", options, none))
  }

  @Test func `chains are asked for at an event of their own, the last`() throws {
    let folder = try TemporaryFolder()
    for path in ["events/syscalls", "events/mmap_lock/mmap_lock_start_locking"] {
      try FileManager.default.createDirectory(
        atPath: folder.path + "/" + path, withIntermediateDirectories: true)
    }
    _ = FileManager.default.createFile(
      atPath: folder.path + "/perf", contents: nil, attributes: [.posixPermissions: 0o755])
    let tracing = Tracing(folders: [folder.path], path: folder.path)
    #expect(tracing.events(nil) == ["mmap_lock:mmap_lock_start_locking"])
    #expect(
      tracing.events(.fp) == [
        "mmap_lock:mmap_lock_start_locking", "mmap_lock:mmap_lock_start_locking/call-graph=fp/",
      ])
  }

  @Test(.enabled(if: canUsePerf), arguments: CallChainMethod.allCases)
  func `perf records through which functions the lock was asked for`(_ method: CallChainMethod)
    throws
  {
    let folder = try TemporaryFolder()
    let run = try Tool.shell(
      """
      cd "$1"
      $TOOL record -o r --json --call-chains \(method.rawValue) bash -c 'echo {1..20000} > /dev/null'
      """, [folder.path])
    #expect(run.status == 0, "\(run.errors)")
    let recording = try Recording(path: folder.path + "/r")
    // A kernel without the tracepoints tells of no acquisitions, and the tool says so.
    guard recording.info.eventClasses.contains(.acquisitions) else {
      #expect(run.errors.contains("call chains are not recorded"))
      return
    }
    #expect(try object(run.output)["callChains"] as? Int == recording.chains.count)
    #expect(recording.info.eventClasses.contains(.callChains))
    let chains = recording.acquisitions.compactMap(\.chain)
    #expect(chains.count > recording.acquisitions.count / 2)
    #expect(!recording.info.omissions.contains { $0.name == "waits without an end" })
    #expect(recording.chains.frames.contains { $0.isKernel })
    #expect(recording.chains.frames.contains { !$0.isKernel && $0.module == "bash" })
  }

  @Test(.enabled(if: canUsePerf)) func `perf records calls, faults, waits and switches`() throws {
    let folder = try TemporaryFolder()
    let run = try Tool.shell(
      """
      cd "$1"
      $TOOL record -o r --json --note here bash -c 'sleep 0.01; exit 3' && $TOOL show --json r
      """, [folder.path])
    #expect(run.status == 0, "\(run.errors)")
    #expect(try folder.contents == ["r"])
    let recording = try Recording(path: folder.path + "/r")
    #expect(run.errors.contains("ended with status 3"))
    #expect(recording.info.note.hasPrefix("here\n"))
    #expect(recording.info.layoutOrigin == .recorded)
    #expect(
      recording.info.eventClasses.isSuperset(of: [
        .calls, .userFaults, .threads, .acquisitions, .switches,
      ]))
    #expect(recording.acquisitions.count > 10 && recording.acquisitions.contains(where: \.isWrite))
    #expect(recording.acquisitions.allSatisfy { $0.isGranted || $0.held == nil })
    #expect(!recording.scheduling.isEmpty)
    let machine = try #require(recording.info.machine)
    #expect(try #require(machine.processors) > 0 && !machine.kernel.isEmpty)
    #expect(machine.stackLimit != .unknown && machine.mapCountLimit != nil)
  }

  @Test(.enabled(if: canUseStrace)) func `strace records calls and says what it lacks`() throws {
    let folder = try TemporaryFolder()
    let run = try Tool.shell(
      "cd \"$1\" && $TOOL record -o r --tool strace --json -- sh -c 'kill -TERM $$'", [folder.path])
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.errors.contains("strace sees no page faults"))
    let report = try object(run.output)
    #expect(report["signal"] as? Int == 15)
    #expect(report["tool"] as? String == "strace")
    let recording = try Recording(path: folder.path + "/r")
    #expect(recording.calls.count > 5 && recording.faults.isEmpty)
    #expect(recording.info.eventClasses.isDisjoint(with: [.userFaults, .acquisitions]))
    #expect(try folder.contents == ["r"])
  }

  @Test(arguments: RecordingTool.allCases)
  func `attaching begins with the kernel's list of mappings`(_ tool: RecordingTool) throws {
    guard tool == .perf ? Self.canUsePerf : Self.canUseStrace else { return }
    let folder = try TemporaryFolder()
    let run = try Tool.shell(
      """
      cd "$1"; mkfifo p
      bash -c 'echo ready > p; while :; do sleep 0.05; done' & program=$!
      read line < p
      $TOOL record -o r --tool \(tool.rawValue) -p $program --seconds 1 --json
      kill $program; rm p
      """, [folder.path])
    #expect(run.output.contains("\"initialLayout\": \"recorded\""), "\(run.output) \(run.errors)")
    let recording = try Recording(path: folder.path + "/r")
    #expect(recording.calls.contains { $0.kind == .clone && $0.errno == nil })
    #expect(recording.initialLayout.contains { $0.backing == .stack })
    #expect(recording.initialLayout.contains { $0.backing == .heap })
    #expect(RecordingSummary(recording).unmappedFaults == 0)
    #expect(try folder.contents == ["r"])
  }

  /// A container says no only when asked.
  private static let canMount =
    (try? Tool.shell("unshare -m mount -t tmpfs none /tmp").status) == 0

  @Test(.enabled(if: canUsePerf && canMount), arguments: [2, 48])
  func `a temporary folder that fills up ends the recording, and says so`(_ mebibytes: Int) throws {
    let folder = try TemporaryFolder()
    let run = try Tool.shell(
      """
      cd "$1"; mkdir t
      # In a name space of its own: the file system goes with the last process that is in it.
      unshare -m bash -c 'mount -t tmpfs -o size=$2m none t
        TMPDIR="$1/t" timeout 60 $TOOL record -o r --call-chains dwarf -- bash -c "while :; do /bin/true; done"
        status=$?; ls t; exit $status' bash "$1" "$2"
      status=$?; rmdir t; exit $status
      """, [folder.path, "\(mebibytes)"])
    // Of 2 MiB what was recorded may be lost; that is said.
    if try mebibytes > 2 || folder.contents == ["r"] {
      #expect(run.status == 0, "\(run.errors)")
      #expect(run.errors.contains("is nearly full; what was recorded until then is kept"))
      #expect(try Recording(path: folder.path + "/r").acquisitions.count > 10)
      #expect(!run.output.contains("rangeland-record"))
    } else {
      #expect(try folder.contents == [])
      #expect(run.status == 1)
      #expect(run.errors.contains("set TMPDIR to a folder with more room"), "\(run.errors)")
    }
  }

  @Test(arguments: RecordingTool.allCases)
  func `an interrupt keeps what was recorded`(_ tool: RecordingTool) throws {
    guard tool == .perf ? Self.canUsePerf : Self.canUseStrace else { return }
    let folder = try TemporaryFolder()
    // The program runs, and so is recorded, when its word comes through the pipe. Another one in its place, by exec, would be
    // the one that is recorded, from its beginning on.
    let run = try Tool.shell(
      """
      cd "$1"; mkfifo p; set -m
      $TOOL record -o r --tool \(tool.rawValue) -- sh -c 'echo ready > p; read never < p' & tool=$!
      read line < p; kill -INT $tool; wait $tool; echo $?; rm p
      """, [folder.path])
    #expect(run.output.hasSuffix("\n0\n"), "\(run.output) \(run.errors)")
    #expect(run.errors.contains("what was recorded until the interrupt is kept"))
    #expect(try Recording(path: folder.path + "/r").calls.count > 3)
    #expect(try folder.contents == ["r"])
  }

  @Test(.enabled(if: canUseStrace))
  func `who is killed leaves nobody, and the next takes away what is left`()
    throws
  {
    let folder = try TemporaryFolder()
    // The traced program tells who traces it; its end shows in that its end of the pipe is closed.
    let run = try Tool.shell(
      """
      cd "$1"; mkdir t; mkfifo p; export TMPDIR="$1/t"; set -m
      $TOOL record -o r --tool strace -- sh -c 'exec 3> p; echo $PPID >&3; exec sleep 1000' & tool=$!
      exec 4< p; read tracer <&4; kill -KILL $tool; cat <&4; wait $tool
      while kill -0 $tracer 2> /dev/null; do :; done; ls t | wc -l
      touch -d '1 minute ago' t/*; mkdir t/other
      $TOOL record -o r --tool strace -- true > /dev/null && ls t
      """, [folder.path])
    #expect(run.output == "1\nother\n", "\(run.output) \(run.errors)")
    #expect(run.status == 0)
  }
}
