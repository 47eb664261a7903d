// A part of the application that most visitors never open.
export const more = () => `more of ${RELEASE}`;
