// SPDX-License-Identifier: Apache-2.0
//
// Small concurrent programs that use one lock, written as text.
//
//     PREPARATION ; THREAD | THREAD | ...      the preparation may be missing; it runs before the threads
//
// Steps of a thread, separated by blanks:
//     w3  w2-5  r7     lock keys 3, 2 to 5, 7 for writing or reading, use them, keep the hold
//     w3?              try to; if that fails, steps that use the hold do nothing
//     w3!              lock with a deadline that may expire at any time while the thread sleeps
//     w3~  w3~!        lock as a task does, which suspends; with a deadline, which a step `t` rings
//     u3               lock for reading with the right to upgrade
//     w0+r4  w0+r4?    lock several ranges at once
//     p  p?  p!        upgrade the latest hold, try to, with a deadline; `p~`, `p~!` as a task does
//     s2               shrink the latest hold to keys 2
//     d  d0            downgrade the latest hold, or the one of the thread's request number 0, and use it
//     -  -0            release it
//     e                enter whole-lock mode, if nobody is in the directory
//     q                let the thread's next request be one that samples
//     o  O             observe the lock from now on, or not any more
//     x2               cancel the task of the program's request number 2
//     t                ring the alarms that are set: the deadlines of tasks
//
// The eight keys lie so that they and their spans meet every level of a lock with three levels: see `Keys`.

/// Where the keys of a program are: eight pieces that are all of `UInt64` together.
///
/// With granules of 2^60 (G) a lock has three levels: G, 4 G, and all keys.
/// One granule of level 0: 0, 1, 0-1, 7. Two: 1-2, 0-2. Three: 1-3. Level 1: 4, 0-3, 0-4, 5; two granules of it: 4-5.
/// All keys: 0-7, 0-6, 5-7.
enum Keys {
  static let granuleShift: UInt8 = 60

  /// First keys, in half granules: 0, 1, 2, 3, 5, 8, 16, and the last key alone.
  static func first(_ key: Int) -> UInt64 {
    switch key {
    case 0: 0
    case 1: 1 << 59
    case 2: 2 << 59
    case 3: 3 << 59
    case 4: 5 << 59
    case 5: 8 << 59
    case 6: 16 << 59
    default: .max
    }
  }

  static func last(_ key: Int) -> UInt64 { key == 7 ? .max : first(key + 1) - 1 }
}

/// One step of a thread. Plain data: it is read on coroutines that may never end.
struct Step {
  enum Verb: UInt8 {
    case lock, tryLock, lockWithin, upgrade, tryUpgrade, upgradeWithin, shrink, downgrade, release
    case enterWhole, sample, observe, unobserve, cancel, ring
  }

  var verb: Verb
  /// As `LockMode`: 0 reads, 1 reads and may upgrade, 2 writes.
  var mode: UInt8 = 0
  var firstKey = 0
  var lastKey = 0
  /// The request that the step makes or is about, counted over the whole program.
  var request = 0
  /// Whether the step waits as a task.
  var isTask = false

  /// A second range that is asked for at the same time: the request after `request`. Its mode, or -1.
  var secondMode: Int8 = -1
  var secondFirstKey = 0
  var secondLastKey = 0

  /// A bit per key.
  var keys: UInt32 { (UInt32(2) << UInt32(lastKey)) - (UInt32(1) << UInt32(firstKey)) }

  /// The step for the second range.
  var second: Step? {
    if secondMode < 0 { return nil }
    return Step(
      verb: verb, mode: UInt8(secondMode), firstKey: secondFirstKey, lastKey: secondLastKey,
      request: request + 1, isTask: isTask)
  }
}

/// A program: its text and what it means.
public struct ExploredProgram: Sendable, CustomStringConvertible {
  /// What the threads use.
  public enum Subject: String, Sendable {
    /// A lock that is in whole-lock mode at the beginning.
    case lock
    /// A lock that is always in its directory.
    case directory
    /// The same with `.throughput`.
    case throughput
    case semaphore
  }

  public let text: String
  public let subject: Subject
  /// A wait that only a deadline ends is part of the program.
  public let deadlinesRescue: Bool
  let preparation: [Step]
  let threads: [[Step]]
  let requestCount: Int

  public var description: String { text }

  /// Reads a program; traps on text that is none.
  public init(
    _ text: String, subject: Subject = .lock, deadlinesRescue: Bool = false
  ) {
    self.text = text
    self.subject = subject
    self.deadlinesRescue = deadlinesRescue
    let parts = text.split(separator: ";", omittingEmptySubsequences: false)
    var requests = 0
    preparation = parts.count > 1 ? Self.steps(parts[0], &requests) : []
    threads = parts.last!.split(separator: "|").map { Self.steps($0, &requests) }
    requestCount = requests
    precondition((1...4).contains(threads.count), "a program has 1 to 4 threads: \(text)")
    precondition(requests <= 32, "a program has at most 32 requests: \(text)")
  }

  private static func steps(_ text: Substring, _ requests: inout Int) -> [Step] {
    let first = requests
    var latest = requests
    return text.split(separator: " ").map { word in
      switch word.first! {
      case "e": return Step(verb: .enterWhole)
      case "q": return Step(verb: .sample)
      case "o": return Step(verb: .observe)
      case "O": return Step(verb: .unobserve)
      case "t": return Step(verb: .ring)
      case "x": return Step(verb: .cancel, request: Int(word.dropFirst())!)
      case "p":
        let verb: Step.Verb =
          word.last == "?" ? .tryUpgrade : word.last == "!" ? .upgradeWithin : .upgrade
        return Step(verb: verb, request: latest, isTask: word.contains("~"))
      case "s":
        let keys = keys(word.dropFirst())
        return Step(verb: .shrink, firstKey: keys.first!, lastKey: keys.last!, request: latest)
      case "-", "d":
        let number = word.count > 1 ? first + Int(word.dropFirst())! : latest
        precondition((first..<requests).contains(number), "no such request: \(word)")
        return Step(verb: word.first! == "-" ? .release : .downgrade, request: number)
      default:
        latest = requests
        let step = acquisition(word, requests)
        requests += step.secondMode < 0 ? 1 : 2
        return step
      }
    }
  }

  private static func acquisition(_ word: Substring, _ request: Int) -> Step {
    var rest = word
    var step = Step(verb: .lock, request: request)
    if rest.last == "?" { step.verb = .tryLock }
    if rest.last == "!" { step.verb = .lockWithin }
    if step.verb != .lock { rest = rest.dropLast() }
    if rest.last == "~" {
      step.isTask = true
      rest = rest.dropLast()
    }
    let pieces = rest.split(separator: "+")
    precondition(pieces.count <= 2, "two ranges at most: \(word)")
    let keys = keys(pieces[0].dropFirst())
    (step.mode, step.firstKey, step.lastKey) = (mode(pieces[0]), keys.first!, keys.last!)
    if pieces.count == 2 {
      let keys = self.keys(pieces[1].dropFirst())
      (step.secondFirstKey, step.secondLastKey) = (keys.first!, keys.last!)
      step.secondMode = Int8(mode(pieces[1]))
    }
    return step
  }

  private static func mode(_ piece: Substring) -> UInt8 {
    switch piece.first {
    case "r": 0
    case "u": 1
    case "w": 2
    default: preconditionFailure("not a step: \(piece)")
    }
  }

  private static func keys(_ text: Substring) -> [Int] {
    let keys = text.split(separator: "-").map { Int($0)! }
    precondition(keys.first! >= 0 && keys.first! <= keys.last! && keys.last! < 8, "keys: \(text)")
    return keys
  }
}
