// SPDX-License-Identifier: Apache-2.0
//
// The judge is judged: semantic mistakes that an address space could make, each of which it has to find.
//
// They are made here, between the judge and a correct space, so that the normal build has no trace of
// them. Each family of calls has a file of its own.

/// A planted mistake.
struct Mistake: Sendable, CustomStringConvertible {
  var name: String
  /// Random operations within which it is found.
  var foundWithin = 400_000
  /// The kinds of calls of the run.
  var kinds = Mistake.fastKinds
  /// Threads that it takes.
  var threads = 1
  /// The space seen through the mistake.
  var make: @Sendable (SpaceSubject) -> any VerifySubject

  var description: String { name }

  /// All of them.
  static let all: [Mistake] =
    AccessMistake.all + AdviseMistake.all + BreakMistake.all + FileMistake.all.map(\.amongFiles)
    + ForkMistake.all.map(\.amongAll) + ListingMistake.all + LimitMistake.all + LockMistake.all
    + MapMistake.all + PolicyMistake.all
    + ProtectMistake.all + RemapMistake.all + ResidencyMistake.all
    + SealMistake.all.map(\.amongAll)
    + StackMistake.all
    + TogetherMistake.all.map { $0.withThreads(8) } + TransferMistake.all.map(\.amongForks)
    + UnmapMistake.all

  /// Forks, files and seals, after which a helper is started anew, take time that the others do not need.
  static let fastKinds = VerifyCall.Kind.allCases.filter {
    ![.fork, .exit, .mseal].contains($0) && !$0.isTransfer && !VerifyCall.Kind.ofFiles.contains($0)
  }

  /// Found among copies between spaces.
  private var amongForks: Mistake {
    var mistake = self
    mistake.kinds = [
      .processRead, .processWrite, .fork, .exit, .mmap, .munmap, .load, .store, .mprotect,
    ]
    return mistake
  }

  /// Found among calls of all kinds.
  private var amongAll: Mistake {
    var mistake = self
    mistake.kinds = VerifyCall.Kind.allCases
    return mistake
  }

  /// Found where most calls are on files.
  private var amongFiles: Mistake {
    var mistake = self
    mistake.kinds =
      VerifyCall.Kind.ofFiles + [.mmap, .munmap, .load, .store, .mprotect, .madvise]
    return mistake
  }

  private func withThreads(_ threads: Int) -> Mistake {
    var mistake = self
    mistake.threads = threads
    return mistake
  }
}

/// The mistakes of a family of calls, and the class that makes them.
protocol MistakeFamily: CaseIterable, RawRepresentable<String>, Sendable {
  func make(_ inner: SpaceSubject) -> any VerifySubject
}

extension MistakeFamily {
  static var all: [Mistake] {
    allCases.map { mistake in Mistake(name: mistake.rawValue) { mistake.make($0) } }
  }
}
