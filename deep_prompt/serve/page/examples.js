// Texts, and the tasks of the zoo that they suit; their cards come first.
export const EXAMPLES = [
  {
    name: "history",
    text: "Ada Lovelace was born in London in 1815, and wrote the first program for Charles Babbage's Analytical Engine.",
    question: "Where was Ada Lovelace born?",
    verb: "wrote",
    suits: ["wikigold", "propbank_ewt", "squad"],
  },
  {
    name: "politics",
    text: "Angela Merkel met Barack Obama in Berlin after the Bundestag had approved the treaty.",
    question: "Who met Barack Obama?",
    verb: "met",
    suits: ["crossner_politics", "propbank_ewt", "squad"],
  },
  {
    name: "medicine",
    text: "Naloxone reverses the antihypertensive effect of clonidine in hypertensive rats.",
    question: "What does naloxone reverse?",
    verb: "reverses",
    suits: ["bc5cdr", "propbank_ewt", "squad"],
  },
  {
    name: "privacy",
    text: "We share your email address with our partners. You may delete your account at any time.",
    question: "Who receives my email address?",
    verb: "share",
    suits: ["policyqa", "propbank_ewt"],
  },
  {
    name: "no answer",
    text: "The committee will publish its report in spring.",
    question: "Who is the mayor of Paris?",
    verb: "publish",
    suits: ["squad_v2", "propbank_ewt"],
  },
];
