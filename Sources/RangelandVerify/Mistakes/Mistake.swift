// SPDX-License-Identifier: Apache-2.0
//
// The judge is judged: semantic mistakes that an address space could make, each of which it has to find.
//
// They are made here, between the judge and a correct space, so that the normal build has no trace of
// them. Each family of calls has a file of its own.

/// A planted mistake.
struct Mistake: Sendable, CustomStringConvertible {
  var name: String
  /// Random operations within which it is found. Nearly all take fewer than 30,000; those that need a rare meeting of calls
  /// have been seen to take 250,000, and a search that finds ends there.
  var foundWithin = 1_000_000
  /// The kinds of calls of the run: those among which it shows.
  var kinds: [VerifyCall.Kind]
  /// Threads that it takes.
  var threads = 1
  /// The space seen through the mistake.
  var make: @Sendable (SpaceSubject) -> any VerifySubject

  var description: String { name }

  /// All of them.
  static let all: [Mistake] =
    AccessMistake.all + AdviseMistake.all + BreakMistake.all + FileMistake.all + ForkMistake.all
    + ListingMistake.all + LimitMistake.all + LockMistake.all + MapMistake.all
    + (MappingLimitCall.canBeReached ? MappingLimitMistake.all : []) + PolicyMistake.all
    + ProtectMistake.all + RemapMistake.all + ResidencyMistake.all + SealMistake.all
    + StackMistake.all + TogetherMistake.all.map { $0.withThreads(8) } + TransferMistake.all
    + UnmapMistake.all

  private func withThreads(_ threads: Int) -> Mistake {
    var mistake = self
    mistake.threads = threads
    return mistake
  }
}

/// The mistakes of a family of calls, and the class that makes them.
protocol MistakeFamily: CaseIterable, RawRepresentable<String>, Sendable {
  /// The kinds of calls among which each of them is found.
  static var kinds: [VerifyCall.Kind] { get }
  func make(_ inner: SpaceSubject) -> any VerifySubject
}

extension MistakeFamily {
  static var all: [Mistake] {
    allCases.map { mistake in
      Mistake(name: mistake.rawValue, kinds: kinds) { mistake.make($0) }
    }
  }
}
