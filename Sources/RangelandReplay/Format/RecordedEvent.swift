// SPDX-License-Identifier: Apache-2.0
//
// What happened: calls, faults, waits for the kernel's lock, and threads that begin, run and end.
//
// Times are nanoseconds since the recording began. Threads are numbered from 0 in the order in
// which they began; the number is not the kernel's thread id, which may be used twice.

/// The arguments of a call: up to six words, the rest zero.
public struct CallArguments: Equatable, Sendable {
  private var words: InlineArray<6, UInt64>

  public init(_ values: UInt64...) {
    precondition(values.count <= 6, "a system call has at most six arguments")
    words = InlineArray(repeating: 0)
    for (index, value) in values.enumerated() { words[index] = value }
  }

  init() { words = InlineArray(repeating: 0) }

  public subscript(index: Int) -> UInt64 {
    get { words[index] }
    set { words[index] = newValue }
  }

  public static func == (left: CallArguments, right: CallArguments) -> Bool {
    (0..<6).allSatisfy { left.words[$0] == right.words[$0] }
  }
}

/// One system call, from enter to exit.
public struct RecordedCall: Equatable, Sendable {
  public var kind: CallKind
  /// The thread's number.
  public var thread: Int
  /// When the kernel began and ended the call; between the two it had its effect.
  public var enter: UInt64
  public var exit: UInt64
  /// As the program passed them.
  public var arguments: CallArguments
  /// What the kernel returned: a value (an address for `mmap`, `mremap`, `brk`) or `-errno`.
  public var result: Int64
  /// For a file mapping: index into the recording's files, or nil when unknown or anonymous.
  public var file: Int?

  public init(
    kind: CallKind, thread: Int, enter: UInt64, exit: UInt64, arguments: CallArguments,
    result: Int64, file: Int? = nil
  ) {
    self.kind = kind
    self.thread = thread
    self.enter = enter
    self.exit = exit
    self.arguments = arguments
    self.result = result
    self.file = file
  }

  /// The errno of a call that failed.
  public var errno: Int32? { (-4095..<0).contains(result) ? Int32(-result) : nil }
}

/// One page fault, as the processor reported it.
public struct RecordedFault: Equatable, Sendable {
  public var thread: Int
  public var time: UInt64
  /// The exact byte address.
  public var address: UInt64
  /// The x86 page fault error code: 1 = page present, 2 = write, 4 = user mode, 16 = fetch.
  public var errorCode: UInt32
  /// Whether the kernel touched the address (copying to or from the program), not the program.
  public var fromKernel: Bool

  public init(
    thread: Int, time: UInt64, address: UInt64, errorCode: UInt32, fromKernel: Bool
  ) {
    self.thread = thread
    self.time = time
    self.address = address
    self.errorCode = errorCode
    self.fromKernel = fromKernel
  }

  public var isWrite: Bool { errorCode & 2 != 0 }
  public var isFetch: Bool { errorCode & 16 != 0 }
}

/// The first thing known of a thread.
public struct RecordedBeginning: Equatable, Sendable {
  /// The thread's number: one more than that of the beginning before it.
  public var thread: Int
  public var time: UInt64
  /// The kernel's id.
  public var id: Int32
  /// The number of the thread that made it, or nil for the first and where it is unknown.
  public var parent: Int?
  /// The name it had last.
  public var name: String

  public init(thread: Int, time: UInt64, id: Int32, parent: Int?, name: String) {
    self.thread = thread
    self.time = time
    self.id = id
    self.parent = parent
    self.name = name
  }
}

/// One entry of a recording's stream.
public enum RecordedEvent: Equatable, Sendable {
  case begin(RecordedBeginning)
  case call(RecordedCall)
  case fault(RecordedFault)
  case acquisition(RecordedAcquisition)
  case scheduling(RecordedScheduling)
  case end(thread: Int, time: UInt64)

  /// When it happened; for a call and an acquisition, when it began. The stream is in this order.
  public var time: UInt64 {
    switch self {
    case .begin(let beginning): beginning.time
    case .call(let call): call.enter
    case .fault(let fault): fault.time
    case .acquisition(let acquisition): acquisition.time
    case .scheduling(let scheduling): scheduling.time
    case .end(_, let time): time
    }
  }

  public var thread: Int {
    switch self {
    case .begin(let beginning): beginning.thread
    case .call(let call): call.thread
    case .fault(let fault): fault.thread
    case .acquisition(let acquisition): acquisition.thread
    case .scheduling(let scheduling): scheduling.thread
    case .end(let thread, _): thread
    }
  }
}
