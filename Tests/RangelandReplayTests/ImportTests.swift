// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RangelandReplay

private func imported(
  _ text: String, _ options: ImportOptions = ImportOptions()
) throws -> (recording: Recording, report: ImportReport) {
  try Recording.importText(bytes: Array(text.utf8), name: "perf.txt", options: options)
}

private func failure(_ text: String) -> RecordingError? {
  do throws(RecordingError) {
    _ = try Recording.importText(bytes: Array(text.utf8), name: "perf.txt")
    return nil
  } catch {
    return error
  }
}

/// A program from exec to exit, as perf prints it, with a second thread and a forked child.
let wholeRun = """
         swapper     0/0     [000]     0.000000000: PERF_RECORD_MMAP -1/0: [0xffffffff81000000(0x120bb08) @ 0xffffffff81000000]: x [kernel.kallsyms]_text
       perf-exec     0/0     [000]     0.000000000: PERF_RECORD_COMM: perf-exec:100/100
          my app   100/100   [001]    10.000000100: PERF_RECORD_COMM exec: my app:100/100
          my app   100/100   [001]    10.000000200: PERF_RECORD_MMAP2 100/100: [0x7ffc00000000(0x21000) @ 0x7ffffffde000 00:00 0 0]: rw-p [stack]
          my app   100/100   [001]    10.000000300: PERF_RECORD_MMAP2 100/100: [0x400000(0x4000) @ 0 fe:00 25 0]: r--p /secret/place/my app
          my app   100/100   [001]    10.000000310: PERF_RECORD_MMAP2 100/100: [0x401000(0x2000) @ 0x1000 fe:00 25 0]: r-xp /secret/place/my app
          my app   100/100   [001]    10.000000350: PERF_RECORD_MMAP2 100/100: [0x7fff00000000(0x2000) @ 0 00:00 0 0]: r-xp [vdso]
          my app   100/100   [001]    10.000000400:  exceptions:page_fault_kernel: address=0x403000 ip=elf_load error_code=0x2
          my app   100/100   [001]    10.000000450:  sched:sched_process_exec: filename=/secret/place/my app pid=100 old_pid=100
          my app   100/100   [001]    10.000000500:            syscalls:sys_exit_execve: 0x0
          my app   100/100   [001]    10.000001000:            syscalls:sys_enter_brk: brk: 0x00000000
          my app   100/100   [001]    10.000001100:             syscalls:sys_exit_brk: 0x2000000
          my app   100/100   [001]    10.000002000:            syscalls:sys_enter_mmap: addr: 0x00000000, len: 0x00002fff, prot: 0x00000001, flags: 0x00000002, fd: 0x00000003, off: 0x00001000
          my app   100/100   [001]    10.000002050: PERF_RECORD_MMAP2 100/100: [0x7f0000000000(0x3000) @ 0x1000 fe:00 672 0]: r--p /secret/libc.so.6
          my app   100/100   [001]    10.000002100:            syscalls:sys_exit_mmap: 0x7f0000000000
          my app   100/100   [001]    10.000003000:          exceptions:page_fault_user: address=0x7f0000001008 ip=0x401000 error_code=0x4
          my app   100/100   [001]    10.000004000:            syscalls:sys_enter_clone3: uargs: 0x7ffc00000100, size: 0x00000058
          my app   100/100   [001]    10.000004100: PERF_RECORD_FORK(100:101):(100:100)
          my app   100/100   [001]    10.000004110:    sched:sched_process_fork: comm=my app pid=100 child_comm=my app child_pid=101
          my app   100/101   [000]    10.000004150:            syscalls:sys_exit_clone3: 0x0
          my app   100/100   [001]    10.000004200:            syscalls:sys_exit_clone3: 0x65
          worker 1   100/101   [000]    10.000004300: PERF_RECORD_COMM: worker 1:100/101
          worker 1   100/101   [000]    10.000005000:         syscalls:sys_enter_madvise: start: 0x7f0000000000, len_in: 0x00001000, behavior: 0x00000004
          worker 1   100/101   [000]    10.000005100:         syscalls:sys_exit_madvise: 0xffffffffffffffea
          my app   100/100   [001]    10.000006000:            syscalls:sys_enter_clone: clone_flags: 0x01200011, newsp: 0x00000000, parent_tidptr: 0x00000000, child_tidptr: 0x7f9bf327da10, tls: 0x00000000
          my app   100/100   [001]    10.000006100: PERF_RECORD_FORK(102:102):(100:100)
          my app   100/100   [001]    10.000006200:            syscalls:sys_exit_clone: 0x66
          my app   102/102   [000]    10.000006300:            syscalls:sys_exit_clone: 0x0
          my app   102/102   [000]    10.000006400:          exceptions:page_fault_user: address=0x403000 ip=0x401000 error_code=0x7
          worker 1   100/101   [000]    10.000007000:   sched:sched_process_exit: comm=worker 1 pid=101 prio=120 group_dead=false
          worker 1   100/101   [000]    10.000007100: PERF_RECORD_EXIT(100:101):(99:99)
          my app   100/100   [001]    10.000008000:            syscalls:sys_enter_munmap: addr: 0x7f0000000000, len: 0x00003000
          my app   100/100   [001]    10.000008100:            syscalls:sys_exit_munmap: 0x0
          my app   100/100   [001]    10.000009000: PERF_RECORD_EXIT(100:100):(99:99)

  """

@Suite struct ImportTests {
  @Test func `a whole run becomes a recording of its process`() throws {
    let (recording, report) = try imported(wholeRun, ImportOptions(note: "how"))
    #expect(report.process == 100 && report.otherProcesses == 1 && report.lostEvents == 0)
    #expect(recording.info.program == "my app")
    #expect(recording.info.note == "how")
    #expect(recording.info.layoutOrigin == .recorded)
    #expect(recording.info.eventClasses == [.calls, .userFaults, .kernelFaults, .threads])
    #expect(
      recording.info.omissions == [
        .init(name: "events of other processes", count: 2),
        .init(name: "faults while the program was loaded", count: 1),
      ])
    #expect(recording.threads.map(\.beginning.name) == ["my app", "worker 1"])
    #expect(recording.threads.map(\.beginning.id) == [100, 101])
    #expect(recording.threads.map(\.beginning.parent) == [nil, 0])
    // Times count from the exec's return.
    #expect(recording.threads.map(\.beginning.time) == [0, 3600])
    #expect(recording.threads.map(\.end) == [8500, 6600])
    #expect(recording.calls.map(\.kind) == [.brk, .mmap, .clone3, .madvise, .clone, .munmap])
    #expect(recording.calls.map(\.thread) == [0, 0, 0, 1, 0, 0])
    #expect(recording.calls[1].enter == 1500 && recording.calls[1].exit == 1600)
    #expect(recording.calls[1].arguments == CallArguments(0, 0x2fff, 1, 2, 3, 0x1000))
    #expect(recording.calls[1].result == 0x7f00_0000_0000)
    #expect(recording.calls[3].errno == 22)
    #expect(
      recording.faults == [
        RecordedFault(
          thread: 0, time: 2500, address: 0x7f00_0000_1008, errorCode: 4, fromKernel: false)
      ])
  }

  @Test func `files and initial mappings lose their folders`() throws {
    let (recording, _) = try imported(wholeRun)
    #expect(recording.files == ["my app", "libc.so.6"])
    #expect(recording.calls[1].file == 1)
    #expect(
      recording.initialLayout == [
        RecordedArea(
          start: 0x40_0000, end: 0x40_1000, protection: .read, backing: .file(0, offset: 0)),
        RecordedArea(
          start: 0x40_1000, end: 0x40_3000, protection: [.read, .execute],
          backing: .file(0, offset: 0x1000)),
        RecordedArea(
          start: 0x40_3000, end: 0x40_4000, protection: .read, backing: .file(0, offset: 0x3000)),
        RecordedArea(
          start: 0x7ffc_0000_0000, end: 0x7ffc_0002_1000, protection: [.read, .write],
          backing: .stack),
        RecordedArea(
          start: 0x7fff_0000_0000, end: 0x7fff_0000_2000, protection: [.read, .execute],
          backing: .kernel),
      ])
  }

  @Test func `an imported recording survives writing and reading`() throws {
    let (recording, _) = try imported(wholeRun)
    let folder = try TemporaryFolder()
    try recording.write(to: folder.path + "/r")
    let isSame = try Recording(path: folder.path + "/r") == recording
    #expect(isSame)
    let summary = RecordingSummary(recording)
    #expect(summary.threads == 2 && summary.threadsAtOnce == 2)
    #expect(summary.userFaults == 1 && summary.kernelFaults == 0 && summary.unmappedFaults == 0)
    #expect(summary.totalCalls == 6 && summary.changingCalls == 2)
    #expect(summary.initialAreas == 5 && summary.peakAreas == 6)
    #expect(
      summary.calls.first { $0.kind == .madvise }
        == .init(kind: .madvise, count: 1, failed: 1, changing: 0))
  }

  @Test func `--process takes another process`() throws {
    let (recording, report) = try imported(wholeRun, ImportOptions(process: 102))
    #expect(report.process == 102)
    #expect(recording.faults.count == 1 && recording.threads.count == 1)
    #expect(throws: RecordingError.self) { try imported(wholeRun, ImportOptions(process: 7)) }
  }

  @Test func `lines out of order are put in order`() throws {
    var lines = wholeRun.split(separator: "\n")
    var random = SeededGenerator("shuffled lines")
    lines.shuffle(using: &random)
    let shuffled = try imported(lines.joined(separator: "\n")).recording
    let straight = try imported(wholeRun).recording
    // The numbers of files and such do not depend on the order of the lines either.
    #expect(shuffled.calls == straight.calls && shuffled.faults == straight.faults)
    #expect(shuffled.threads == straight.threads)
    #expect(shuffled.initialLayout == straight.initialLayout && shuffled.files == straight.files)
  }

  @Test func `older text with a thread id alone is understood and its layout inferred`() throws {
    let text = """
      500 [000]  10.000001: syscalls:sys_exit_execve: 0x0
      500 [000]  10.000002: exceptions:page_fault_user: address=0x401000 ip=0x401000 error_code=0x14
      500 [000]  10.000003: exceptions:page_fault_user: address=0x403008 ip=0x401000 error_code=0x4
      500 [000]  10.000004: exceptions:page_fault_user: address=0x7ffc00000008 ip=0x401000 error_code=0x6
      500 [000]  10.000005: syscalls:sys_enter_mmap: addr: 0x00000000, len: 0x00002000, prot: 0x00000003, flags: 0x00000022, fd: 0xffffffff, off: 0x00000000
      500 [000]  10.000006: syscalls:sys_exit_mmap: 0x7f0000000000
      500 [000]  10.000007: exceptions:page_fault_user: address=0x7f0000000000 ip=0x401000 error_code=0x6
      500 [000]  10.000008: syscalls:sys_enter_clone3: uargs: 0x7ffc00000100, size: 0x00000058
      501 [001]  10.000009: syscalls:sys_exit_clone3: 0x0
      500 [000]  10.000010: syscalls:sys_exit_clone3: 0x1f5
      501 [001]  10.000011: syscalls:sys_enter_mprotect: start: 0x00430000, len: 0x00001000, prot: 0x00000001
      501 [001]  10.000012: syscalls:sys_exit_mprotect: 0x0
      500 [000]  10.000013: syscalls:sys_enter_clone: clone_flags: 0x01200011, newsp: 0x00000000, parent_tidptr: 0x00000000, child_tidptr: 0x00000000, tls: 0x00000000
      500 [000]  10.000014: syscalls:sys_exit_clone: 0x1f6
      502 [000]  10.000015: exceptions:page_fault_user: address=0x7f0000001000 ip=0x401000 error_code=0x6
      """
    let (recording, report) = try imported(text)
    #expect(report.process == 500 && report.otherProcesses == 1)
    #expect(recording.info.layoutOrigin == .inferred)
    #expect(recording.threads.map(\.beginning.id) == [500, 501])
    #expect(recording.threads.map(\.beginning.parent) == [nil, 0])
    #expect(recording.threads.map(\.beginning.time) == [0, 8000])
    #expect(recording.calls.map(\.arguments).first?[4] == .max)
    #expect(
      recording.initialLayout == [
        RecordedArea(start: 0x40_1000, end: 0x40_4000, protection: [.read, .execute]),
        RecordedArea(start: 0x43_0000, end: 0x43_1000, protection: .read),
        RecordedArea(
          start: 0x7ffc_0000_0000, end: 0x7ffc_0000_1000, protection: [.read, .write],
          backing: .stack),
      ])
  }

  @Test func `a clone3 child that execs was a process`() throws {
    let text = """
      7 [000] 1.000001: syscalls:sys_exit_execve: 0x0
      7 [000] 1.000002: syscalls:sys_enter_clone3: uargs: 0x7ffc00000100, size: 0x58
      7 [000] 1.000003: syscalls:sys_exit_clone3: 0x8
      8 [000] 1.000004: exceptions:page_fault_user: address=0x401000 ip=0x401000 error_code=0x14
      8 [000] 1.000005: syscalls:sys_exit_execve: 0x0
      7 [000] 1.000006: exceptions:page_fault_user: address=0x402000 ip=0x401000 error_code=0x14
      7 [000] 1.000007: exceptions:page_fault_user: address=0x403000 ip=0x401000 error_code=0x14
      """
    let (recording, _) = try imported(text)
    #expect(recording.threads.map(\.beginning.id) == [7])
    #expect(recording.faults.map(\.address) == [0x40_2000, 0x40_3000])
  }

  @Test func `text that begins inside a program keeps all its threads`() throws {
    let text = """
      7 [000] 1.000001: exceptions:page_fault_user: address=0x402000 ip=0x401000 error_code=0x14
      9 [000] 1.000002: exceptions:page_fault_user: address=0x403000 ip=0x401000 error_code=0x14
      """
    let (recording, report) = try imported(text)
    #expect(report.otherProcesses == 0)
    #expect(recording.threads.map(\.beginning.id) == [7, 9])
  }

  @Test func `only what follows the last exec counts`() throws {
    let line = "  syscalls:sys_enter_munmap: addr: 0x00401000, len: 0x00001000"
    let text = """
      sh 5/5 [000] 1.000001:\(line)
      sh 5/5 [000] 1.000002: syscalls:sys_exit_munmap: 0x0
      sh 5/5 [000] 1.000003: syscalls:sys_enter_execve: filename: 0x7ffc, argv: 0x1, envp: 0x2
      app 5/5 [000] 1.000004: syscalls:sys_exit_execve: 0x0
      app 5/5 [000] 1.000005: syscalls:sys_enter_execve: filename: 0x7ffc, argv: 0x1, envp: 0x2
      app 5/5 [000] 1.000006: syscalls:sys_exit_execve: 0xfffffffffffffffe
      app 5/5 [000] 1.000007:\(line)
      app 5/5 [000] 1.000008: syscalls:sys_exit_munmap: 0x0
      """
    let (recording, _) = try imported(text)
    #expect(recording.calls.map(\.kind) == [.execve, .munmap])
    #expect(recording.calls[0].errno == 2)
    #expect(recording.calls[1].enter == 3000)
    #expect(recording.info.omissions == [.init(name: "events before the last exec", count: 1)])
  }

  @Test func `calls without a partner are left out and counted`() throws {
    let text = """
      a 5/5 [000] 1.000001: syscalls:sys_exit_mmap: 0x7f0000000000
      a 5/5 [000] 1.000002: syscalls:sys_enter_munmap: addr: 0x00401000, len: 0x00001000
      a 5/5 [000] 1.000003: syscalls:sys_enter_munmap: addr: 0x00401000, len: 0x00001000
      a 5/5 [000] 1.000004: syscalls:sys_exit_munmap: 0x0
      a 5/5 [000] 1.000005: syscalls:sys_enter_brk: brk: 0x00000000
      """
    let (recording, _) = try imported(text)
    #expect(recording.calls.count == 1)
    #expect(
      recording.info.omissions == [
        .init(name: "calls that had not returned", count: 1),
        .init(name: "calls whose return is missing", count: 1),
        .init(name: "returns whose call is missing", count: 1),
      ])
  }

  @Test func `a thread id used again is another thread`() throws {
    func life(_ start: Int) -> String {
      """
      a 5/5 [000] 1.0000\(start)1: PERF_RECORD_FORK(5:6):(5:5)
      b 5/6 [001] 1.0000\(start)2: syscalls:sys_exit_clone3: 0x0
      b 5/6 [001] 1.0000\(start)3: exceptions:page_fault_user: address=0x402000 ip=0x401000 error_code=0x6
      b 5/6 [001] 1.0000\(start)4: sched:sched_process_exit: comm=b pid=6 prio=120
      b 5/6 [001] 1.0000\(start)5: exceptions:page_fault_kernel: address=0x402000 ip=x error_code=0x2

      """
    }
    let text =
      "a 5/5 [000] 1.000001: syscalls:sys_exit_execve: 0x0\n" + life(1) + life(2) + life(3)
    let (recording, _) = try imported(text)
    #expect(recording.threads.map(\.beginning.id) == [5, 6, 6, 6])
    #expect(recording.faults.map(\.thread) == [1, 1, 2, 2, 3, 3])
    // The kernel may touch memory for a thread after its end was noted.
    #expect(recording.threads[1].end == recording.faults[1].time)
  }

  @Test func `lost and unknown events are counted`() throws {
    let text = """
      # a comment

      a 5/5 [000] 1.000001: exceptions:page_fault_user: address=0x402000 ip=0x401000 error_code=0x14
      a 5/5 [000] 1.000002: PERF_RECORD_LOST lost 12
      a 5/5 [000] 1.000003: sched:sched_stat_wait: comm=a pid=5 delay=3
      a 5/5 [000] 1.000004: syscalls:sys_enter_read: fd: 0x0
      a 5/5 [000] 1.000005: PERF_RECORD_THROTTLE
      a 5/5 [000] 1.000006: exceptions:page_fault_user: address=0xffffffffff600000 ip=0x401000 error_code=0x14
      a 5/5 [000] 1.000007: exceptions:page_fault_user: address=some_symbol+0x10 ip=0x401000 error_code=0x14
      """
    let (recording, report) = try imported(text)
    #expect(report.lostEvents == 12 && report.lines == 9)
    #expect(recording.faults.count == 1)
    #expect(
      recording.info.omissions == [
        .init(name: "events lost by perf", count: 12),
        .init(name: "faults outside the program's space", count: 2),
        .init(name: "unknown event PERF_RECORD_THROTTLE", count: 1),
        .init(name: "unknown event sched:sched_stat_wait", count: 1),
        .init(name: "unknown event syscalls:sys_enter_read", count: 1),
      ])
  }

  @Test func `every call's arguments are read in order`() throws {
    for kind in CallKind.allCases where kind != .execve {
      let values = (0..<kind.argumentCount).map { "arg\($0): 0x\(String($0 + 0x1000, radix: 16))" }
      let text = """
        a 5/5 [000] 1.000001: syscalls:sys_enter_\(kind.name): \(values.joined(separator: ", "))
        a 5/5 [000] 1.000002: syscalls:sys_exit_\(kind.name): 0xffffffffffffffda
        """
      let (recording, _) = try imported(text)
      #expect(recording.calls.count == 1, "\(kind)")
      let call = try #require(recording.calls.first)
      #expect(call.kind == kind && call.errno == 38)
      for index in 0..<kind.argumentCount {
        #expect(call.arguments[index] == UInt64(index + 0x1000), "\(kind), \(index)")
      }
    }
  }

  static let heads: [(String, Int32, Int32, UInt64)] = [
    ("app 12/34 [001] 5.000000007: ", 12, 34, 5_000_000_007),
    ("app 12/34 5.000007: ", 12, 34, 5_000_007_000),
    ("C2 CompilerThre  12/34  [011]  5.5: ", 12, 34, 5_500_000_000),
    ("34 [000] 5.000000000: ", -1, 34, 5_000_000_000),
    ("app: [x] 7 12/34 [001] 5.000000007: ", 12, 34, 5_000_000_007),
    (":34 34 [000] 5.000000000: ", -1, 34, 5_000_000_000),
    ("1.5: 12/34 [001] 5.000000007: ", 12, 34, 5_000_000_007),
  ]

  @Test(arguments: heads.indices)
  func `heads of lines are understood`(_ index: Int) throws {
    let (head, process, thread, time) = Self.heads[index]
    var parser = PerfTextParser()
    var line = head + "syscalls:sys_exit_munmap: 0x0"
    try line.withUTF8 { try parser.line($0) }
    let event = try #require(parser.text.events.elements.first)
    #expect(event.process == process && event.thread == thread && event.time == time)
  }

  static let malformed = [
    "hello world", "app 12/34 [001] 5.000000007:", "app 12/34 [001] 5.000000007: word",
    "app 12/34 [001] 5.0000000071: syscalls:sys_exit_brk: 0x0",
    "app 12/34 [001] 5.000000007: syscalls:sys_exit_brk: ",
    "app 12/34 [001] 5.000000007: syscalls:sys_exit_brk: 0x10000000000000000",
    "app 12/34 [001] 5.000000007: syscalls:sys_enter_munmap: addr: 0x1000",
    "app 12/34 [001] 5.000000007: syscalls:sys_enter_munmap: addr: 0x1000, len: zz",
    "app 12/34 [001] 5.000000007: exceptions:page_fault_user: address=0x1 ip=0x2",
    "app 12/34 [001] 5.000000007: exceptions:page_fault_user: ",
    "app 12/34 [001] 5.000000007: PERF_RECORD_FORK(1:x):(1:1)",
    "app 12/34 [001] 5.000000007: PERF_RECORD_COMM exec: app",
    "app 12/34 [001] 5.000000007: PERF_RECORD_MMAP2 1/1: [0x1001(0x1000) @ 0 0:0 0 0]: r--p x",
    "app 12/34 [001] 5.000000007: PERF_RECORD_MMAP2 1/1: [0x1000(0x1000) @ 0",
    "app 12/34 [001] 5.000000007: PERF_RECORD_LOST lost many",
    "app 12/34 [001] 5.000000007: sched:sched_process_fork: comm=a",
    "99999999999 [001] 5.000000007: syscalls:sys_exit_brk: 0x0",
  ]

  @Test(arguments: malformed)
  func `a malformed line is named with what was expected`(_ line: String) throws {
    let good =
      "a 5/5 [000] 1.000001: exceptions:page_fault_user: address=0x402000 ip=0x4 error_code=0x4"
    let error = try #require(failure("\(good)\n\(line)\n\(good)\n"))
    #expect(error.kind == .malformedLine)
    #expect(error.place == .line(2))
    #expect(error.file == "perf.txt")
    #expect(error.advice.hasPrefix("expected "))
  }

  @Test func `a cut last line is named so`() throws {
    let error = try #require(failure(String(wholeRun.prefix(700))))
    #expect(error.reason == "the last line is cut off")
  }

  @Test func `empty text and text without a program are refused`() {
    #expect(failure("")?.kind == .empty)
    #expect(failure("\n# nothing\n")?.kind == .nothingRecorded)
  }

  @Test func `any damage to text is an error or a consistent recording`() {
    var random = SeededGenerator("damaged text")
    let bytes = Array(wholeRun.utf8)
    for _ in 0..<3_000 {
      var changed = bytes
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        let index = Int.random(in: 0..<changed.count, using: &random)
        switch Int.random(in: 0..<3, using: &random) {
        case 0: changed[index] = UInt8.random(in: 0x20..<0x7f, using: &random)
        case 1: changed.remove(at: index)
        default: changed[index] = UInt8.random(in: 0x30..<0x3a, using: &random)
        }
      }
      do throws(RecordingError) {
        let (recording, _) = try Recording.importText(bytes: changed, name: "t")
        _ = RecordingSummary(recording)
      } catch {
        #expect(!error.reason.isEmpty)
      }
    }
  }

  @Test func `text in pieces of any size gives the same`() throws {
    // Longer than the buffer, so that lines straddle its end.
    let line =
      "a 5/5 [000] 1.000001: exceptions:page_fault_user: address=0x402000 ip=0x4 error_code=0x4\n"
    let count = (3 << 20) / line.utf8.count
    let (recording, report) = try imported(String(repeating: line, count: count))
    #expect(recording.faults.count == count && report.lines == UInt64(count))
  }

  @Test func `an import that is given up throws`() throws {
    let folder = try TemporaryFolder()
    try wholeRun.write(toFile: folder.path + "/t", atomically: false, encoding: .utf8)
    let error = #expect(throws: RecordingError.self) {
      try Recording.importText(path: folder.path + "/t", poll: { _ in false })
    }
    #expect(error?.kind == .interrupted)
  }
}
