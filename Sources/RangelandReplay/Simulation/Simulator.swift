// SPDX-License-Identifier: Apache-2.0
//
// The simulation: virtual processors, threads that run on them in turn, and one lock.
//
// Guarantee: the same program, policy, processors and settings give the same run, bit for bit.
// Mechanism: discrete events, one for each thread that runs, sleeps or is being woken; a heap gives the next. A thread
//   that is ready takes the lowest idle processor, or stands in one queue for all; a running one gives way when its time
//   slice is over and somebody stands there. A thread that waits for the lock polls on its processor for as long as the
//   real one, then leaves it.
// Cost: two events a step without waits; no allocation and no reference counting an event, but for a look-up a wait where
//   call chains are recorded.

import Rangeland

/// What a simulated machine is like.
public struct SimulationSettings: Sendable, Equatable {
  /// For how long a thread runs while others are ready, in nanoseconds.
  public var slice: UInt64 = 3_000_000
  /// From a grant to a parked thread until it is ready, in nanoseconds: a wake-up. nil = as in the recording, or
  /// `usualWake` where that does not tell.
  public var wake: UInt64?
  /// From a release until a thread that polls has the lock, in nanoseconds. nil = as in the recording, or nothing where
  /// that does not tell.
  public var handover: UInt64?
  /// One poll of the semaphore or the range lock, in nanoseconds.
  public var poll: UInt64 = 20
  /// Whether readers of a semaphore queue and sleep at once, as Linux's do since 5.11; Rangeland's own poll first, as
  /// writers do.
  public var readersSleep = false
  /// What a fault takes whose length is not recorded, in nanoseconds.
  public var fault: UInt64 = 700

  public init() {}

  static let usualWake: UInt64 = 3_000

  /// What a simulation of `program` takes for a wake-up.
  public func wake(_ program: SimulationProgram) -> UInt64 {
    wake ?? program.passing.sleeping ?? Self.usualWake
  }

  /// What a simulation of `program` takes until a thread that polls has the lock.
  public func handover(_ program: SimulationProgram) -> UInt64 {
    handover ?? program.passing.polling ?? 0
  }
}

struct Simulator: ~Copyable {
  /// What a thread is about; `holding`... run on a processor.
  enum Phase: UInt8 {
    case unborn
    /// It sleeps: a recorded pause.
    case pausing
    /// It runs the program's own code.
    case thinking
    /// It waits for steps of other threads, without a processor.
    case ordered
    /// It polls a semaphore that it is not queued for.
    case polling
    /// It polls, queued.
    case spinning
    /// It sleeps until it gets the lock.
    case parked
    /// It polled, and the lock is on its way.
    case handed
    case holding
    case ended
  }

  struct Thread {
    /// The present step, and the one after the last.
    var step: UnsafePointer<SimulationStep>
    var end: UnsafePointer<SimulationStep>
    /// Key of the event that counts; others of this thread are void.
    var event: UInt64 = 0
    /// Of the present stretch on the processor: what is left, and since when it runs.
    var remaining: UInt64 = 0
    var since: UInt64 = 0
    /// When it was ready, or began to wait for others.
    var waitingSince: UInt64 = 0
    var sliceEnd: UInt64 = 0
    /// When its present state began, for the trace.
    var spanStart: UInt64 = 0
    var done: UInt32 = 0
    /// The next in the list of those that wait for the same thread, and the first of those that wait for this one.
    var nextDependent: Int32 = -1
    var firstDependent: Int32 = -1
    var core: Int8 = -1
    var phase = Phase.unborn
    /// Stands in the queue of those that are ready.
    var isReady = false
    /// Waits for a word of a VMA, holding the lock.
    var waitsForWord = false
    var isGranted = false
    var isInvited = false
    /// Is being woken.
    var isWaking = false
    /// A writer that has not gone on as a reader yet.
    var willDowngrade = false
    var span = SimulationTrace.Span.absent
  }

  let settings: SimulationSettings
  let wake: UInt64
  let handover: UInt64
  let cores: Int
  let dependencies: UnsafePointer<UInt64>
  /// Time between operations passes without a processor (`SimulationProgram.Calibration.none`).
  let thinksOffProcessor: Bool
  let threads: UnsafeMutablePointer<Thread>
  let threadCount: Int
  var lock: LockModel
  var heap: EventHeap
  var now: UInt64 = 0
  var idle: UInt64
  /// Ready threads, a ring.
  private let ready: UnsafeMutablePointer<Int32>
  private let readyMask: Int
  private var readyHead = 0
  var readyCount = 0
  /// The semaphore's estimate of how many polls bring success (`ReadWriteSemaphore.pollEstimate`).
  var pollEstimate: UInt64 = 0
  var trace: SimulationTrace?
  let traces: Bool
  // Results.
  var ended = 0
  var events: UInt64 = 0
  var lastEnd: UInt64 = 0
  var orderNanoseconds: UInt64 = 0
  var readyNanoseconds: UInt64 = 0
  var busyNanoseconds: UInt64 = 0
  /// Where call chains are recorded: what waits by chain came to.
  let steps: SimulationSteps
  let hasChains: Bool
  var chainWaits: [ChainKey: ChainSum] = [:]

  static let pollLimit: UInt64 = 200

  init(
    _ program: SimulationProgram, policy: LockPolicy, cores: Int, settings: SimulationSettings,
    dependencies: UnsafePointer<UInt64>, trace: SimulationTrace?
  ) {
    precondition((1...64).contains(cores), "a simulation has 1 to 64 processors")
    let count = program.threadCount
    precondition(count <= EventHeap.threadLimit, "a simulation has at most 2^20 threads")
    let threads = Self.threads(of: program)
    var capacity = 1
    while capacity < count + 1 { capacity *= 2 }
    // Nothing but assignments from here on: a branch among them made the optimiser (6.3) destroy `lock` before it was
    // there.
    self.settings = settings
    wake = settings.wake(program)
    handover = settings.handover(program)
    self.cores = cores
    self.dependencies = dependencies
    thinksOffProcessor = program.calibration == .none
    threadCount = count
    self.threads = threads
    lock = LockModel(policy: policy, threads: max(1, count), areas: SimulatedAreas(program))
    heap = EventHeap(capacity: count * 2)
    idle = UInt64.max >> UInt64(64 - cores)
    ready = .allocate(capacity: capacity)
    readyMask = capacity - 1
    self.trace = trace
    traces = trace != nil
    steps = program.steps
    hasChains = !program.chains.isEmpty
  }

  /// The threads of a program, at their first steps.
  private static func threads(of program: SimulationProgram) -> UnsafeMutablePointer<Thread> {
    let threads = UnsafeMutablePointer<Thread>.allocate(capacity: max(1, program.threadCount))
    for index in 0..<program.threadCount {
      // Of a thread without steps any address will do.
      let base = UnsafePointer(program.steps.base(index)) ?? UnsafePointer(bitPattern: 64)!
      (threads + index).initialize(to: Thread(step: base, end: base + program.steps.count(index)))
    }
    return threads
  }

  deinit {
    threads.deallocate()
    ready.deallocate()
  }

  @inline(__always)
  func at(_ thread: Int) -> UnsafeMutablePointer<Thread> { threads + thread }

  /// Runs from the start to the end; false if it was cancelled.
  ///
  /// - Parameter isCancelled: asked now and then, with the number of steps that are behind.
  mutating func run(roots: [Int], isCancelled: (UInt64) -> Bool) -> Bool {
    for thread in roots { begin(thread) }
    while let event = heap.pop() {
      let thread = event.thread
      if at(thread).pointee.event != event.key { continue }
      now = event.time
      events &+= 1
      if events & 0x3_ffff == 0, isCancelled(events) { return false }
      happen(thread)
    }
    return true
  }

  // MARK: processors

  @inline(__always)
  mutating func schedule(_ thread: Int, after nanoseconds: UInt64) {
    at(thread).pointee.event = heap.push(now &+ nanoseconds, thread)
  }

  /// The thread could run: it does if a processor is idle.
  mutating func makeReady(_ thread: Int) {
    if idle != 0 {
      let core = idle.trailingZeroBitCount
      idle &= idle &- 1
      dispatch(thread, core)
      return
    }
    mark(thread, .ready)
    at(thread).pointee.isReady = true
    at(thread).pointee.waitingSince = now
    ready[(readyHead &+ readyCount) & readyMask] = Int32(thread)
    readyCount &+= 1
  }

  /// Gives a thread a processor.
  private mutating func dispatch(_ thread: Int, _ core: Int) {
    let state = at(thread)
    if state.pointee.isReady {
      state.pointee.isReady = false
      readyNanoseconds &+= now &- state.pointee.waitingSince
    }
    state.pointee.core = Int8(core)
    state.pointee.sliceEnd = now &+ settings.slice
    resume(thread)
  }

  /// The thread leaves its processor, and the next one gets it.
  mutating func leaveProcessor(_ thread: Int) {
    let core = Int(at(thread).pointee.core)
    at(thread).pointee.core = -1
    if readyCount > 0 {
      let next = Int(ready[readyHead])
      readyHead = (readyHead &+ 1) & readyMask
      readyCount &-= 1
      dispatch(next, core)
    } else {
      idle |= 1 << UInt64(core)
    }
  }

  /// Goes on with the stretch that the thread is in, for at most what is left of its slice.
  @inline(__always)
  mutating func runOn(_ thread: Int) {
    let state = at(thread)
    state.pointee.since = now
    var stretch = state.pointee.remaining
    let slice = state.pointee.sliceEnd > now ? state.pointee.sliceEnd &- now : 0
    if stretch > slice { stretch = slice }
    schedule(thread, after: stretch)
  }

  /// A stretch on the processor has passed; true when it is at its end, false when the thread goes on or has given way.
  @inline(__always)
  mutating func hasRun(_ thread: Int) -> Bool {
    let state = at(thread)
    let ran = now &- state.pointee.since
    busyNanoseconds &+= ran
    state.pointee.remaining &-= ran
    if state.pointee.remaining == 0 { return true }
    if readyCount == 0 {
      state.pointee.sliceEnd = now &+ settings.slice
      runOn(thread)
      return false
    }
    let core = Int(state.pointee.core)
    state.pointee.core = -1
    let next = Int(ready[readyHead])
    readyHead = (readyHead &+ 1) & readyMask
    readyCount &-= 1
    mark(thread, .ready)
    state.pointee.isReady = true
    state.pointee.waitingSince = now
    ready[(readyHead &+ readyCount) & readyMask] = Int32(thread)
    readyCount &+= 1
    dispatch(next, core)
    return false
  }

  /// The thread's state has changed, for the trace.
  @inline(__always)
  mutating func mark(_ thread: Int, _ span: SimulationTrace.Span) {
    if traces { markTraced(thread, span) }
  }

  @inline(never)
  private mutating func markTraced(_ thread: Int, _ span: SimulationTrace.Span) {
    let state = at(thread)
    if state.pointee.span == span { return }
    trace!.add(
      state.pointee.span, thread: thread, from: state.pointee.spanStart, to: now)
    state.pointee.span = span
    state.pointee.spanStart = now
  }
}
