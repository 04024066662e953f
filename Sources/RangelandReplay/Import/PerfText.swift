// SPDX-License-Identifier: Apache-2.0
//
// The lines of `perf script`, as records.
//
// Source: perf 6.1 `tools/perf/builtin-script.c`, `tools/perf/util/event.c`; the kernel's formats
// in `/sys/kernel/tracing/events/*/format`.

/// One line that matters.
struct TextEvent: BitwiseCopyable {
  enum Kind: UInt8 {
    /// A call begins: `payload` is the index of its arguments.
    case enter
    /// A call ends: `value` is its result.
    case exit
    /// `value` is the address, `payload` the error code.
    case userFault, kernelFault
    /// A process or thread is made: `value` is the new thread's id, `payload` its process or -1.
    case forkRecord, schedulerFork
    /// The thread `value` ends.
    case threadExit
    /// An exec discards the old space; `payload` is the new program's name.
    case commExec
    /// The thread `value` is now called `payload`.
    case comm
    /// An exec succeeded; `payload` is the program's name.
    case schedulerExec
    /// A mapping was made or changed: `payload` is the index of its description.
    case mapping
    /// `mmap_lock` is asked for; `value` is the space's address in the kernel, `payload` has the bits below.
    case lockStart
    /// It was given or not, or a writer goes on as a reader.
    case lockReturned
    case lockReleased
    /// The thread `value` left a processor; `payload` is a `RecordedScheduling.Reason`.
    case switchedOut
    /// The thread `value` came to the processor `payload`, -1 if unknown.
    case switchedIn
    /// The thread `value` was made ready.
    case woken

    /// Whether it may be the doing of any process of the machine.
    var isOfScheduler: Bool { self == .switchedOut || self == .switchedIn || self == .woken }
  }

  /// Bits of a lock's `payload`; above them stands the number of its call chain plus 1, or 0.
  static let lockOfWriter = 1
  static let lockGranted = 2
  static let lockChainShift = 2

  var time: UInt64
  /// Running number: the order among equal times.
  var line: UInt32
  /// The process, -1 where the text does not tell.
  var process: Int32
  var thread: Int32
  var kind: Kind
  /// For `enter` and `exit`.
  var call: CallKind
  /// The index of the thread's name on this line.
  var name: Int32
  var payload: Int
  var value: UInt64
}

/// A `PERF_RECORD_MMAP2` line.
struct TextMapping {
  var start: UInt64
  var length: UInt64
  var offset: UInt64
  var protection: Protection
  var isShared: Bool
  /// Index of the file's name, shortened.
  var name: Int
}

/// Everything a text said, in its own order.
struct PerfText {
  /// By reference: nobody else holds the text.
  var events = LargeList<TextEvent>()
  var arguments: [UInt64] = []
  var mappings: [TextMapping] = []
  var names: [String] = []
  var lines: UInt64 = 0
  var lost: UInt64 = 0
  /// Events that a recording does not hold, by name.
  var skipped: [String: UInt64] = [:]
  /// The tool that printed the text.
  var source = "perf script"
  /// Call chains of locks.
  var chains = CallChainBuilder()
  /// Faults at addresses that no mapping can have (the kernel's half, the vsyscall page).
  var faultsOutside: UInt64 = 0

  private var nameIndex: [String: Int] = [:]

  /// The index of `name` in `names`.
  mutating func intern(_ name: String) -> Int {
    if let index = nameIndex[name] { return index }
    nameIndex[name] = names.count
    names.append(name)
    return names.count - 1
  }

  /// Puts the events in the order of their times. Nearly always they are already.
  mutating func sort() {
    var elements = events.elements
    let isSorted = zip(elements, elements.dropFirst()).allSatisfy { $0.time <= $1.time }
    if !isSorted { elements.sort { ($0.time, $0.line) < ($1.time, $1.line) } }
  }
}

/// A path's last component, so that recordings do not tell where things lie on the machine.
func lastComponent(_ path: String) -> String {
  guard path.utf8.contains(0x2f), path != "//anon" else { return path }
  let tail = path.split(separator: "/", omittingEmptySubsequences: true).last
  return tail.map(String.init) ?? path
}
