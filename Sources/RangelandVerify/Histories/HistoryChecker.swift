// SPDX-License-Identifier: Apache-2.0
//
// Whether a sequential order explains a history: every outcome, and the state at the end.
//
// Mechanism: a depth-first search over the orders that keep "ended before it began", with a memory of the
//   states that lead nowhere.
// Source: Wing, Gong, "Testing and verifying concurrent objects" (1993); Lowe, "Testing for linearizability"
//   (2017).

struct HistoryChecker {
  /// Whether choosing an address and mapping there are two steps.
  var choosesFirst: Bool
  /// States after which a search is given up.
  var limit = 4_000_000

  enum Verdict: Equatable {
    /// Calls by thread, in an order that explains the history.
    case explained([Int])
    case unexplained
    /// Given up.
    case undecided
  }

  func check(_ history: History) -> Verdict {
    precondition(
      history.threads.count <= HistoryState.mostThreads, "HistoryChecker: too many threads")
    var initial = HistoryState(pages: PageModel(count: history.final.count))
    for call in history.prologue {
      // One after the other, by thread 0, whose position begins anew.
      while initial.step(call, 0, history.window) == nil {}
      initial.done = SIMD8()
    }
    var deadEnds: Set<HistoryState> = []
    // The path: a state, the thread that led there, and the moves that are still to be tried from it.
    var path: [Place] = [Place(&initial, by: nil, history, choosesFirst)]
    while let state = path.last?.state {
      let last = path.count - 1
      if path[last].isComplete {
        if state.pages.seen == history.final { return .explained(path.compactMap(\.thread)) }
        path[last].moves = []
      }
      guard let (thread, move) = path[last].moves.popLast() else {
        path.removeLast()
        deadEnds.insert(state)
        if deadEnds.count > limit { return .undecided }
        continue
      }
      let made = history.threads[thread][Int(state.done[thread])]
      var next = state
      if let outcome = next.step(made.call, thread, history.window, move), outcome != made.outcome {
        continue
      }
      let place = Place(&next, by: thread, history, choosesFirst)
      if !deadEnds.contains(next) { path.append(place) }
    }
    return .unexplained
  }

  /// A state on the path of the search.
  private struct Place {
    var state: HistoryState
    /// Whose step led here; `nil` = nobody's.
    var thread: Int?
    /// Left to be tried from here, the last first.
    var moves: [(thread: Int, move: HistoryState.Move)] = []
    var isComplete = false

    /// Finds the moves: those of the threads whose next call began before every call that is not done has
    /// ended. What ended first is tried first.
    ///
    /// - Parameter state: calls that look for gaps see what is there.
    init(
      _ state: inout HistoryState, by thread: Int?, _ history: History, _ choosesFirst: Bool
    ) {
      self.thread = thread
      var firstEnd = Int.max
      var next: [(thread: Int, call: HistoryCall)] = []
      for (thread, calls) in history.threads.enumerated()
      where Int(state.done[thread]) < calls.count {
        let call = calls[Int(state.done[thread])]
        firstEnd = min(firstEnd, call.ended)
        next.append((thread, call))
      }
      isComplete = next.isEmpty
      next.removeAll { $0.call.began >= firstEnd }
      next.sort { $0.call.ended > $1.call.ended }
      if choosesFirst {
        for (thread, call) in next { state.look(call.call, thread, history.window) }
      }
      self.state = state
      for (thread, call) in next {
        for move in state.moves(
          call.call, thread, history.window, choosesFirst: choosesFirst, likely: call.outcome)
        {
          moves.append((thread, move))
        }
      }
    }
  }
}
