// SPDX-License-Identifier: Apache-2.0
//
// Which thread belongs to which process.
//
// With process ids in the text it says so itself. Otherwise threads are found from the results of
// clone: flags tell a thread from a process; for clone3, whose flags lie in memory, a child that
// later execs was a process, any other a thread.

struct TextProcesses {
  /// Calls and faults by process, processes without any left out.
  private(set) var counts: [Int32: UInt64] = [:]
  /// For text without process ids: thread to process.
  private var owners: [Int32: Int32] = [:]
  /// Threads of each process that the text names.
  private var members: Set<UInt64> = []

  init(_ text: PerfText) {
    findOwners(text)
    for event in text.events.elements {
      let process = process(of: event)
      if process > 0, !event.kind.isOfScheduler { members.insert(Self.key(process, event.thread)) }
      switch event.kind {
      case .exit, .userFault, .kernelFault: if process > 0 { counts[process, default: 0] += 1 }
      case .forkRecord where event.payload > 0:
        members.insert(Self.key(Int32(event.payload), Int32(truncatingIfNeeded: event.value)))
      default: break
      }
    }
    for (thread, owner) in owners { members.insert(Self.key(owner, thread)) }
  }

  /// The process with the most calls and faults; of equals, the first id.
  var largest: Int32? {
    counts.max { ($0.value, $1.key) < ($1.value, $0.key) }?.key
  }

  func process(of event: TextEvent) -> Int32 {
    event.process >= 0 ? event.process : owners[event.thread] ?? event.thread
  }

  /// Whether the text shows `thread` as one of `process`.
  func has(_ thread: Int32, in process: Int32) -> Bool {
    members.contains(Self.key(process, thread))
  }

  private static func key(_ process: Int32, _ thread: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: process)) << 32 | UInt64(UInt32(bitPattern: thread))
  }

  /// How a thread was made, as far as the results of clone and fork tell.
  private struct Origin {
    var parent: Int32
    var isThread: Bool
  }

  private mutating func findOwners(_ text: PerfText) {
    var origins: [Int32: Origin] = [:]
    var flags: [Int32: UInt64] = [:]
    var seen: [Int32] = []
    var known: Set<Int32> = []
    var execed: Set<Int32> = []
    for event in text.events.elements
    where event.process < 0 && event.thread > 0 && !event.kind.isOfScheduler {
      if known.insert(event.thread).inserted { seen.append(event.thread) }
      switch (event.kind, event.call) {
      case (.enter, .clone): flags[event.thread] = text.arguments[event.payload]
      case (.exit, .clone), (.exit, .clone3), (.exit, .fork), (.exit, .vfork):
        guard let child = Int32(exactly: event.value), child > 0 else { break }
        let isThread =
          event.call == .clone3
          || event.call == .clone && (flags[event.thread] ?? 0) & LinuxFlag.cloneThread != 0
        origins[child] = Origin(parent: event.thread, isThread: isThread)
      case (.exit, .execve) where event.value == 0: execed.insert(event.thread)
      case (.schedulerExec, _): execed.insert(event.thread)
      default: break
      }
    }
    guard let first = seen.first else { return }
    for thread in seen + origins.keys.sorted() {
      // Up to the first that is no thread of its parent. Ids used again could make a circle.
      var owner = thread
      var steps = 0
      while let origin = origins[owner], origin.isThread, !execed.contains(owner),
        steps <= origins.count
      {
        owner = origin.parent
        steps += 1
      }
      // Without any exec the text begins inside a program: threads from before are its own.
      if origins[owner] == nil && execed.isEmpty { owner = first }
      owners[thread] = owner
    }
  }
}
