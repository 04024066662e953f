// SPDX-License-Identifier: Apache-2.0
//
// What this system offers for recording: tools, tracepoints, and the right to use them.

import Glibc

/// Which tool records.
public enum RecordingTool: String, Sendable, CaseIterable {
  /// Calls, faults, waits for `mmap_lock` and the scheduler, in nanoseconds.
  case perf
  /// Calls only, in microseconds; slows the program down at each of them.
  case strace
}

/// How perf follows a thread's stack; the names are perf's.
public enum CallChainMethod: String, Sendable, CaseIterable {
  /// Along frame pointers: cheap. A chain ends at the first function without one, which in most distributions is the C
  /// library's.
  case fp
  /// By the tables for exceptions, which nearly all programs have: 8 KiB of the stack are kept at each acquisition.
  case dwarf
}

struct Tracing {
  static let calls: [String] = CallKind.allCases.map(\.name)

  /// Why perf cannot record here, or nil if it can.
  private(set) var perfProblem: (reason: String, advice: String)?
  private(set) var straceProblem: (reason: String, advice: String)?
  /// perf's list of events.
  private(set) var events: [String] = []
  /// What this kernel or user cannot record, and what follows.
  private(set) var missing: [String] = []

  /// Looks around; `folder` is where tracefs is, tried in this order.
  init(
    folders: [String] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"],
    path: String = getenv("PATH").map { String(cString: $0) } ?? ""
  ) {
    if Self.find("strace", in: path) == nil {
      straceProblem = (
        "strace is not installed", "install it (Debian: apt-get install strace)"
      )
    }
    guard Self.find("perf", in: path) != nil else {
      perfProblem = (
        "perf is not installed", "install it (Debian: apt-get install linux-perf)"
      )
      return
    }
    guard let folder = folders.first(where: { access($0 + "/events", F_OK) == 0 }) else {
      let isHidden = folders.contains { access($0, F_OK) == 0 } && geteuid() != 0
      perfProblem =
        isHidden
        ? ("the kernel's tracepoints may be read by root only", "run it as root (sudo)")
        : (
          "the kernel's tracepoints are not there: tracefs is not mounted",
          "mount it: mount -t tracefs tracefs /sys/kernel/tracing"
        )
      return
    }
    guard access(folder + "/events/syscalls", R_OK | X_OK) == 0 else {
      perfProblem =
        access(folder + "/events", R_OK | X_OK) != 0 || geteuid() != 0
        ? ("the kernel's tracepoints may be read by root only", "run it as root (sudo)")
        : (
          "this kernel has no tracepoints of system calls",
          "take a kernel with CONFIG_FTRACE_SYSCALLS"
        )
      return
    }
    func has(_ group: String, _ name: String) -> Bool {
      access("\(folder)/events/\(group)/\(name)", F_OK) == 0
    }
    func add(_ group: String, _ names: [String], _ consequence: String) {
      let present = names.filter { has(group, $0) }
      events += present.map { "\(group):\($0)" }
      if present.count < names.count {
        let absent = names.filter { !present.contains($0) }.map { "\(group):\($0)" }
        missing.append("this kernel has no \(absent.joined(separator: ", ")): \(consequence)")
      }
    }
    // A call that this kernel does not have, the program cannot use.
    for call in Self.calls where has("syscalls", "sys_enter_\(call)") {
      events += ["syscalls:sys_enter_\(call)", "syscalls:sys_exit_\(call)"]
    }
    add(
      "exceptions", ["page_fault_user", "page_fault_kernel"], "page faults are not recorded")
    add(
      "mmap_lock",
      ["mmap_lock_start_locking", "mmap_lock_acquire_returned", "mmap_lock_released"],
      "waits for mmap_lock are not recorded")
    add(
      "sched", ["sched_process_fork", "sched_process_exit", "sched_process_exec"],
      "ends of threads are taken from perf's own records")
    add("sched", ["sched_switch"], "why threads stopped running is not recorded")
    add("sched", ["sched_wakeup"], "wake-ups are not recorded")
    if geteuid() != 0 {
      let paranoia = Int(
        RecordedMachine.contents("/proc/sys/kernel/perf_event_paranoid").prefix { $0 != "\n" })
      if let paranoia, paranoia > -1 {
        perfProblem = (
          "perf may not use tracepoints (kernel.perf_event_paranoid is \(paranoia))",
          "run it as root (sudo), or give perf CAP_PERFMON"
        )
      }
    }
  }

  /// The event at which chains are taken: before the wait, so that nobody else waits longer for it.
  static let chainEvent = "mmap_lock:mmap_lock_start_locking"

  /// perf's list of events, with call chains where they are asked for.
  ///
  /// The event with a chain comes last, and beside the one without: the kernel goes through the events of a tracepoint from
  /// the last to the first. So the time without a chain is taken when the chain has been, and the wait begins there.
  func events(_ callChains: CallChainMethod?) -> [String] {
    guard let callChains, events.contains(Self.chainEvent) else { return events }
    return events + ["\(Self.chainEvent)/call-graph=\(callChains.rawValue)/"]
  }

  /// What strace is told to trace; a question mark: if this strace knows it.
  static let straceCalls =
    "trace=%memory,?mseal,?process_madvise,?userfaultfd,clone,?clone3,?fork,?vfork,execve"

  /// What a recording by strace does not have.
  static let straceLacks =
    "strace sees no page faults, no waits for mmap_lock and no scheduler, counts in microseconds and slows the "
    + "program down at each call"

  /// Where `program` is, looking through the folders of `path`.
  static func find(_ program: String, in path: String) -> String? {
    for folder in path.split(separator: ":", omittingEmptySubsequences: false) {
      let candidate = "\(folder.isEmpty ? "." : folder)/\(program)"
      if access(candidate, X_OK) == 0 { return candidate }
    }
    return nil
  }
}
