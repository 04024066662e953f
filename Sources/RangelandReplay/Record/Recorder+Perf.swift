// SPDX-License-Identifier: Apache-2.0
//
// A recording by perf: its own file while the program runs, its text afterwards.

import CRangeland
import Glibc
import SystemPackage

extension Recorder {
  mutating func runPerf(
    _ isInterrupted: () -> Bool, _ poll: (UInt64) -> Void
  ) throws(RecordingError) -> (recording: Recording, report: RecordReport) {
    let scratch = try ScratchFolder()
    let data = scratch.path + "/perf.data"
    let (pages, reserve) = buffers(in: scratch.path)
    var arguments = [
      "perf", "record", "-q", "-o", data, "-c", "1", "-m",
      String(pages), "-d", "-k", "mono", "--switch-events",
      "--no-buildid", "--no-buildid-cache", "-e",
      tracing.events(options.callChains).joined(separator: ","),
    ]
    let ending: ProgramEnding
    var maps: ProcessMaps?
    switch options.target {
    case .program(let program):
      arguments += ["--"] + program
      ending = wait(
        for: try ChildProcess(KernelHelper.guarding(arguments)), until: .max,
        folder: scratch.path, reserve: reserve, isInterrupted)
    case .process(let id, _):
      // perf says when its events count: the mappings are listed right after.
      let control = try Pipe()
      let answers = try Pipe()
      arguments += ["-p", String(id), "-D", "-1", "--control", "fd:62,63"]
      let child = try ChildProcess(
        KernelHelper.guarding(arguments),
        descriptors: [(control.reading.rawValue, 62), (answers.writer, 63)])
      let command = Array("enable\n".utf8)
      guard write(control.writer, command, command.count) == command.count else {
        throw perfFailed("perf cannot be told to begin")
      }
      try awaitAnswer(answers, child, isInterrupted)
      maps = try ProcessMaps(process: id, clock: rl_monotonic_ns)
      ending = wait(
        for: child, until: deadline(), folder: scratch.path, reserve: reserve, isInterrupted)
    }
    var status = stat()
    guard stat(data, &status) == 0, status.st_size > 0 else {
      throw perfFailed("perf recorded nothing (it ended with \(ending))")
    }
    do {
      let (recording, text) = try importPerf(data, maps, poll)
      return (recording, report(ending, text))
    } catch {
      // perf that could not write its end leaves nothing that can be read.
      guard ScratchFolder.room(in: scratch.path) ?? .max < 64 << 10 else { throw error }
      throw RecordingError(
        .cannotWrite, file: ScratchFolder.base, at: .file,
        "the folder for temporary files is full: perf could not write what it recorded",
        advice: "set TMPDIR to a folder with more room")
    }
  }

  /// Pages of perf's buffer of each processor, and the room in the folder that its end needs: what is in the buffers, and
  /// what perf writes until it is told.
  ///
  /// Copies of stacks take more, as far as all buffers together have 1 GiB; together they have at most a quarter of the room.
  private func buffers(in folder: String) -> (pages: Int, reserve: UInt64) {
    let room = ScratchFolder.room(in: folder) ?? 1 << 40
    let processors = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    var pages = options.callChains == .dwarf ? 16384 : 2048
    func bytes() -> UInt64 { UInt64(pages * processors) << 12 }
    while pages > 2048 && bytes() > 1 << 30 || pages > 64 && bytes() > room / 4 { pages /= 2 }
    return (pages, bytes() + min(128 << 20, room / 4))
  }

  /// Waits for perf's word that it records; throws when it ends instead.
  private mutating func awaitAnswer(
    _ answers: borrowing Pipe, _ child: ChildProcess, _ isInterrupted: () -> Bool
  ) throws(RecordingError) {
    while true {
      var wait = pollfd(fd: answers.reading.rawValue, events: Int16(POLLIN), revents: 0)
      if Glibc.poll(&wait, 1, 100) > 0 { return }
      guard child.wait(milliseconds: 0) == nil else {
        throw perfFailed("perf did not attach to the process")
      }
      if isInterrupted() {
        throw RecordingError(
          .interrupted, file: "record", at: .file, "interrupted before anything was recorded",
          advice: "run it again")
      }
    }
  }

  private func perfFailed(_ reason: String) -> RecordingError {
    RecordingError(
      .cannotRecord, file: "perf", at: .file, reason,
      advice: "see perf's own message, or record with --tool strace")
  }

  private func importPerf(
    _ data: String, _ maps: ProcessMaps?, _ poll: (UInt64) -> Void
  ) throws(RecordingError) -> (Recording, ImportReport) {
    var output = try Pipe()
    // perf warns of each event that has no trace fields.
    let nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC)
    defer { close(nowhere) }
    let script = try ChildProcess(
      KernelHelper.guarding([
        // Without --no-inline perf starts addr2line for each function.
        "perf", "script", "-i", data, "--ns", "--no-inline", "--show-mmap-events",
        "--show-task-events", "--show-lost-events", "--show-switch-events", "-F",
        "comm,pid,tid,cpu,time,event,trace" + (options.callChains == nil ? "" : ",ip,sym,dso"),
      ]), descriptors: [(output.writer, 1), (nowhere, 2)])
    output.closeWriter()
    let input = InputBytes(descriptor: output.reading, name: "perf script")
    let text = try TextLines.parse(input) { read in
      poll(read)
      return true
    }
    while script.wait(milliseconds: 1_000) == nil {}
    return try Recording.make(text, "perf script", importOptions(maps))
  }
}
